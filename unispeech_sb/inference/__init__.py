"""Inference beyond SpeechBrain's interfaces: long recordings, many files."""
