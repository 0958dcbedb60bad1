"""Stage 1, data: text in. Sources yield records, templates make examples of them, mixtures mix them."""
