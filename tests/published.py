"""The public checkpoints of both families, as far as they are known.

Names, classes and sizes are those of the model pages; ``guessed`` marks what
could not be read there. Weights are never part of the repository.
"""

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "codevector_dim": 768,
    "proj_codevector_dim": 768,
}
BIASED = {**LARGE, "conv_bias": True}
MIXED = {"use_weighted_layer_sum": True}
SPEAKERS = {"num_labels": 1211, **MIXED}
TWO = {"num_labels": 2, **MIXED}
PHONES = {**LARGE, "mask_time_prob": 0.075}

PUBLISHED = {
    "microsoft/unispeech-large-1500h-cv": (
        "UniSpeechForPreTraining",
        {**BIASED, "num_ctc_classes": 80},
    ),
    "microsoft/unispeech-large-multi-lingual-1500h-cv": (
        "UniSpeechForPreTraining",
        {**BIASED, "num_ctc_classes": 300},  # guessed
    ),
    "microsoft/unispeech-1350-en-353-fr-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 46, "pad_token_id": 42},
    ),
    "microsoft/unispeech-1350-en-168-es-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 45, "pad_token_id": 41},
    ),
    "microsoft/unispeech-1350-en-90-it-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 65, "pad_token_id": 61},
    ),
    "microsoft/unispeech-1350-en-17h-ky-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 43, "pad_token_id": 39},
    ),
    "patrickvonplaten/unispeech-large-1500h-cv-timit": (
        "UniSpeechForCTC",
        {**BIASED, "vocab_size": 31, "pad_token_id": 28},
    ),
    "microsoft/unispeech-sat-base": ("UniSpeechSatForPreTraining", {}),
    "microsoft/unispeech-sat-base-plus": ("UniSpeechSatForPreTraining", {}),
    "microsoft/unispeech-sat-large": ("UniSpeechSatForPreTraining", LARGE),
    "microsoft/unispeech-sat-base-100h-libri-ft": ("UniSpeechSatForCTC", {}),
    "microsoft/unispeech-sat-base-sv": ("UniSpeechSatForXVector", SPEAKERS),
    "microsoft/unispeech-sat-base-plus-sv": (
        "UniSpeechSatForXVector",
        SPEAKERS,
    ),
    "microsoft/unispeech-sat-large-sv": (
        "UniSpeechSatForXVector",
        {**LARGE, **SPEAKERS},
    ),
    "microsoft/unispeech-sat-base-sd": (
        "UniSpeechSatForAudioFrameClassification",
        TWO,
    ),
    "microsoft/unispeech-sat-base-plus-sd": (
        "UniSpeechSatForAudioFrameClassification",
        TWO,
    ),
    "microsoft/unispeech-sat-large-sd": (
        "UniSpeechSatForAudioFrameClassification",
        {**LARGE, **TWO},
    ),
}
"""Hub name -> transformers' class, options that differ from its defaults."""

MEGABYTES = {
    "microsoft/unispeech-large-1500h-cv": 1270,
    "microsoft/unispeech-large-multi-lingual-1500h-cv": 1270,
    "microsoft/unispeech-1350-en-353-fr-ft-1h": 1260,
    "microsoft/unispeech-sat-base": 382,
    "microsoft/unispeech-sat-large": 1280,
    "microsoft/unispeech-sat-base-100h-libri-ft": 378,
    "microsoft/unispeech-sat-base-sv": 404,
    "microsoft/unispeech-sat-large-sv": 1290,
    "microsoft/unispeech-sat-large-sd": 1260,
}
"""Hub name -> size of the weights, as its page shows it."""
