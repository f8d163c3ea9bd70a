"""AAM-softmax with sub-centres and the inter-top-k penalty: the objective of
the authors' speaker verification models, and how its margins set in.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.losses import aam_softmax_loss


class AAMSoftmax(Lobe):
    """Cosines with the vectors of each speaker, trained with an angular
    margin.

    A speaker may have several vectors, the sub-centres (Deng et al. 2020), of
    which the nearest counts. The nearest wrong speakers are pushed away
    further (inter-top-k, Zhao et al. 2022). With one sub-centre the weights
    have the form of ``AMSoftmax``'s.

    ``margin_share``, 1 at first and no part of the weights, multiplies both
    margins: training sets it as ``margin_ramp`` says.

    Arguments
    ---------
    input_size : int
        Size of the vectors X.
    num_classes : int
        Number of speakers C.
    scale : float
        Factor of the cosines.
    margin : float
        Radians added to the right speaker's angle in training.
    sub_centers : int
        Vectors K per speaker.
    top_k : int
        How many of the nearest wrong speakers are made harder, 0 for none.
    top_k_margin : float
        Radians taken off the angles of those in training.

    Raises
    ------
    ValueError
        On less than one sub-centre, a negative ``top_k``, or a margin that is
        not from 0 to a right angle.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import AAMSoftmax
    >>> objective = AAMSoftmax(input_size=8, num_classes=9, sub_centers=3)
    >>> objective(torch.randn(2, 8)).shape
    torch.Size([2, 9])
    >>> objective(torch.randn(2, 8), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        input_size,
        num_classes,
        scale=32.0,
        margin=0.2,
        sub_centers=1,
        top_k=5,
        top_k_margin=0.1,
    ):
        super().__init__(
            {
                "input_size": input_size,
                "num_classes": num_classes,
                "scale": scale,
                "margin": margin,
                "sub_centers": sub_centers,
                "top_k": top_k,
                "top_k_margin": top_k_margin,
            }
        )
        if sub_centers < 1 or top_k < 0:
            raise ValueError(
                "AAMSoftmax: expected sub_centers of at least 1 and top_k of "
                f"at least 0; got {sub_centers} and {top_k}"
            )
        if not (0 <= margin < math.pi / 2 and 0 <= top_k_margin < math.pi / 2):
            raise ValueError(
                "AAMSoftmax: expected margin and top_k_margin in radians, "
                f"from 0 to pi / 2; got {margin} and {top_k_margin}"
            )
        self.margin_share = 1.0
        # The K vectors of a speaker stand side by side
        self.weight = nn.Parameter(
            torch.empty(input_size, num_classes * sub_centers)
        )
        nn.init.xavier_normal_(self.weight)

    def forward(self, vectors, labels=None):
        """Scores speakers, or says how far the right ones are from winning.

        Arguments
        ---------
        vectors : torch.Tensor
            Speaker vectors, [B, X].
        labels : torch.Tensor, optional
            Index of each row's speaker, [B].

        Returns
        -------
        torch.Tensor
            With labels the loss, a scalar; without them the scaled cosines,
            [B, C]. In float32.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = F.normalize(vectors.float(), dim=1)
            cosines = vectors @ F.normalize(self.weight.float(), dim=0)
        # [B, C * K] -> [B, C]
        cosines = cosines.unflatten(1, (self.config["num_classes"], -1)).amax(2)
        if labels is None:
            return self.config["scale"] * cosines
        return aam_softmax_loss(
            cosines,
            labels,
            self.config["scale"],
            self.margin_share * self.config["margin"],
            self.config["top_k"],
            self.margin_share * self.config["top_k_margin"],
        )


def margin_ramp(epochs, start=2.0, stop=2.0):
    """Share of the margins in force at a point of the training.

    None up to ``start``, all of it from ``stop`` on, and a straight line
    between them. The authors' models had two epochs without, then all at once.

    Arguments
    ---------
    epochs : float
        Epochs already trained, fractions of one included.
    start : float
        Where the rise begins, in epochs.
    stop : float
        Where it ends.

    Returns
    -------
    float
        Value for ``AAMSoftmax.margin_share``, from 0 to 1.

    Raises
    ------
    ValueError
        When the rise ends before it begins.

    Example
    -------
    >>> [margin_ramp(epochs, 1, 3) for epochs in range(5)]
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if stop < start:
        raise ValueError(
            f"margin_ramp: expected start <= stop; got {start} and {stop}"
        )
    if start < epochs < stop:
        return (epochs - start) / (stop - start)
    return float(epochs >= stop)
