"""New pieces for an existing tokenizer, learned on text of new languages. Needs no jax.

base.py         a folder's files to what there is to extend, or why it cannot be
words.py        texts to the words of letters that pieces are learned from
learning.py     words to new pieces: continued BPE
merging.py      new pieces into tokenizer.json and tokenizer.model
extension.py    all of it in order: `extend`
changes.py      what becomes of old text
"""

from jaxlingua.tokens.extend.extension import Extension, NewPiece, extend

__all__ = ["Extension", "NewPiece", "extend"]
