"""Plug-ins: a class of the user's, named `module:Name`, in place of one of the platform's own."""
