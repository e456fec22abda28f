"""What the encoders are compared with: the stage outputs of the libraries' own networks."""

import torch


def normalised(x, mean, std):
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def recorded(module, names, x):
    """The outputs of the named sub-modules during a forward pass of the module."""
    outputs = {}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: outputs.update({name: output.clone()})
        )
        for name in names
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return [outputs[name] for name in names]
