"""What distributed training asks of gradients."""

import torch


def touch(tensor, parameters):
    """Gives parameters a zero gradient without changing the tensor.

    Distributed training waits for a gradient of every trainable parameter;
    one that this step does not use would block it.

    Arguments
    ---------
    tensor : torch.Tensor
        Any tensor that the loss depends on.
    parameters : iterable of torch.nn.Parameter
        Those without a part in this step.

    Returns
    -------
    torch.Tensor
        The tensor, tied to the parameters.

    Example
    -------
    >>> unused = torch.nn.Parameter(torch.ones(3))
    >>> touch(torch.ones(2, requires_grad=True), [unused]).sum().backward()
    >>> unused.grad
    tensor([0., 0., 0.])
    """
    firsts = [p.view(-1)[0] for p in parameters if p.requires_grad]
    return tensor + 0.0 * torch.stack(firsts).sum() if firsts else tensor
