"""Files of raw rows in, the same rows with their probabilities out, in bounded memory."""
