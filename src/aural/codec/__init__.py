"""The codec: training losses, long sounds in windows, files of codes, and other people's weights."""
