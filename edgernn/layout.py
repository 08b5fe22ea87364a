"""How the columns of a recording are told apart: delimiter, time, label, stream, channels. No values."""
