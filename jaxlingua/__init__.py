"""jaxlingua: brings LLaMA-family language models to new languages on TPUs."""

__version__ = "0.1.0"
