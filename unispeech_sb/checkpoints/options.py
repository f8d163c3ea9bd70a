"""Options of transformers' configurations, with their defaults.

A ``config.json`` may leave out what is a default. ``Backbone`` takes the
first table under the same names.
"""

BACKBONE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": [512, 512, 512, 512, 512, 512, 512],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_feature_prob": 0.0,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 0,
    "adapter_attn_dim": None,
}
"""Options of the backbone that transformers has too."""

HEADS = {
    "vocab_size": 32,
    "final_dropout": 0.1,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "problem_type": None,
    "use_weighted_layer_sum": False,
    "classifier_proj_size": 256,
    "tdnn_dim": [512, 512, 512, 512, 1500],
    "tdnn_kernel": [5, 3, 3, 1, 1],
    "tdnn_dilation": [1, 2, 3, 1, 1],
    "xvector_output_dim": 512,
    "num_codevectors_per_group": 320,
    "num_codevector_groups": 2,
    "codevector_dim": 256,
    "proj_codevector_dim": 256,
    "feat_quantizer_dropout": 0.0,
    "num_ctc_classes": 80,
    "replace_prob": 0.5,
    "num_clusters": 504,
}
"""Options of what stands on it."""

SWITCHES = {
    "last_state": "normed",
    "mask_rule": "hf",
    "tdnn_lengths": "exact",
}
"""Where publishers' codes differ: options of this package, with the values
that an unpadded utterance cannot tell from the publisher's."""

WAV_NORM_EPS = 1e-7
"""Epsilon that transformers' feature extractor adds to the variance."""

NUM_LABELS = 2
"""Number of classes of a configuration without ``id2label``."""
