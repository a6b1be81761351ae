"""The codec: encode and decode, files of codes, training and its losses, evaluation, other people's weights."""
