"""What the answers of a model are like: their language, length, repetition, copying, agreement."""
