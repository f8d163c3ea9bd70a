"""Sizes by name, each as its differences from ``Backbone``'s defaults.

The published models: UniSpeech (Wang et al. 2021) and UniSpeech-SAT (Chen et
al. 2021). The small ones are for tests and for training from scratch.
"""

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "normalize_wav": True,
}
BASE = {"normalize_wav": False}

PRESETS = {
    "unispeech_large": {**LARGE, "conv_bias": True},
    "unispeech_sat_base": BASE,
    "unispeech_sat_base_plus": BASE,
    "unispeech_sat_large": LARGE,
    # For training from scratch on a CPU: minutes, not days.
    "small": {
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        # Fewer layers with longer strides, of 20 ms in all: at the published
        # ones' rates the first two would take most of the time.
        "conv_dim": [32, 64, 128, 128, 128],
        "conv_stride": [10, 4, 2, 2, 2],
        "conv_kernel": [20, 8, 4, 4, 4],
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "layerdrop": 0.0,
        "normalize_wav": True,
    },
    # For tests and examples: milliseconds.
    "tiny": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8, 8, 8, 8, 8, 8, 8],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "layerdrop": 0.0,
        "normalize_wav": True,
    },
}
