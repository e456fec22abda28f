"""The verbs of derainctl: one module each, or a folder whose verb.py is the verb."""
