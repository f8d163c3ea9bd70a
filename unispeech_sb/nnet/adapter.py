"""Adapters: small layers that are trained or switched, the rest kept."""

from torch import nn


class AttentionAdapter(nn.Module):
    """Norm, down-projection, ReLU, up-projection: what a block adds to its
    output for one language.

    Arguments
    ---------
    dim : int
        Model size D.
    inner_dim : int
        Size of the inner layer.

    Example
    -------
    >>> import torch
    >>> AttentionAdapter(8, 4)(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(self, dim, inner_dim):
        super().__init__()
        # transformers keeps torch's epsilon here, whatever layer_norm_eps is.
        self.norm = nn.LayerNorm(dim)
        self.linear_1 = nn.Linear(dim, inner_dim)
        self.linear_2 = nn.Linear(inner_dim, dim)

    def forward(self, feats):
        """Computes what is added.

        Arguments
        ---------
        feats : torch.Tensor
            Output of a block, [B, T, D].

        Returns
        -------
        torch.Tensor
            [B, T, D].
        """
        return self.linear_2(self.linear_1(self.norm(feats)).relu())

    def reset_parameters(self, std=0.02, generator=None):
        """Draws the weights anew, as transformers draws them.

        Arguments
        ---------
        std : float
            Standard deviation of the weights; biases are zero.
        generator : torch.Generator, optional
            Source of randomness; torch's default one when omitted.
        """
        self.norm.reset_parameters()
        for layer in (self.linear_1, self.linear_2):
            nn.init.normal_(layer.weight, std=std, generator=generator)
            nn.init.zeros_(layer.bias)
