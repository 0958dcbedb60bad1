"""Our model as lm-evaluation-harness knows models: all kinds of requests, in process, on any mesh."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.generate.engine import generate
from jaxlingua.generate.likelihood import Continuation, Likelihood, likelihoods
from jaxlingua.generate.prompts import cut_prompts
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.masks import prompt_tokens
from jaxlingua.tokens.tokenizer import Tokenizer

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as error:
    raise ConfigError(
        f"eval.harness.tasks: given, but lm-evaluation-harness is not there ({error}); "
        f"pip install 'jaxlingua[harness]'"
    ) from None

_TOP_K = 50  # what transformers' GenerationConfig has where a task that draws tokens names none
# What a task may say in generation_kwargs, beside until and max_gen_toks.
_KNOWN = ("do_sample", "temperature", "top_k", "top_p", "num_beams", "length_penalty", "early_stopping")


class HarnessModel(TemplateLM):
    """A model, its tokenizer and a mesh behind lm-evaluation-harness' interface.

    Every text is encoded as in training: exactly one BOS where the tokenizer has one, and control tokens that
    stand in a text are text. A prompt that is too long loses tokens behind its BOS (classes of
    lm-evaluation-harness cut the BOS off too); `cut` counts such prompts and their tokens. The first window
    of a rolling text begins with BOS, later ones with what precedes them.

    Args:
        params: plain parameters, sharded over `mesh`.
        eos_ids: any of these ends an answer; empty for the tokenizer's.
        config: its `generate` has rows and, for tasks that name no max_gen_toks, the longest answer; its
            `run.seed` belongs to tasks that draw tokens.
        on_progress: called with requests done and requests in all, of each kind.
    Same as: HFLM of lm-evaluation-harness, for prompts that fit.
    """

    def __init__(
        self,
        model: Llama,
        params: Any,
        tokenizer: Tokenizer,
        *,
        mesh: Mesh,
        config: Config,
        eos_ids: Sequence[int] = (),
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ):
        super().__init__()
        self._model, self._params, self._tokenizer = model, params, tokenizer
        self._eos_ids = tuple(eos_ids) or (tokenizer.eos_id,)
        self._seed, self._max_new_tokens = config.run.seed, config.generate.max_new_tokens
        self._options = {
            "batch_rows": config.generate.batch_rows,
            "mesh": mesh,
            "on_progress": on_progress,
        }
        self.cut: Counter[str] = Counter()

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a prompt."""
        return self.eot_token_id if self._tokenizer.bos_id is None else self._tokenizer.bos_id

    @property
    def max_length(self) -> int:
        return self._model.config.max_positions

    @property
    def max_gen_toks(self) -> int:
        return self._max_new_tokens

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, with its BOS unless `add_special_tokens` is False."""
        if add_special_tokens is False:
            return self._tokenizer.encode_batch([string])[0].ids.tolist()
        return prompt_tokens([string], self._tokenizer)[0].tolist()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation of a context, and whether it is what greedy decoding writes.

        Both are encoded together and parted where the context alone ends; spaces at its end belong to the
        continuation.
        """
        pairs = [_parted(*request.args) for request in requests]
        contexts = list(dict.fromkeys(context for context, _ in pairs if context))
        of_context = dict(zip(contexts, prompt_tokens(contexts, self._tokenizer), strict=True))
        whole = prompt_tokens([context + continuation for context, continuation in pairs], self._tokenizer)
        tokens = []
        for (context, continuation), ids in zip(pairs, whole, strict=True):
            first = len(of_context[context]) if context else int(self._tokenizer.bos_id is not None)
            if len(ids) <= first:
                raise DataError(
                    f"harness: the continuation '{continuation}' after '{context[-40:]}' has no token of its "
                    f"own; one or more are needed; change the task's choices"
                )
            prefix = np.array([self.prefix_token_id], np.int32)
            tokens.append(((context, continuation), ids[:first] if first else prefix, ids[first:]))
        found = self._likelihoods([(prompt, continuation) for _, prompt, continuation in tokens])
        return self._told("loglikelihood", requests, [(one.logprob, one.is_greedy) for one in found])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, each token predicted once, in windows of max_positions.

        The last window of a text reaches back over tokens that were predicted before, as far as fits.
        """
        windows, owners = [], []
        encodings = self._tokenizer.encode_batch([request.args[0] for request in requests])
        for owner, encoding in enumerate(encodings):
            for pair in get_rolling_token_windows(
                encoding.ids.tolist(), self.prefix_token_id, self.max_length, context_len=1
            ):
                windows.append(tuple(np.array(ids, np.int32) for ids in make_disjoint_window(pair)))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, one in zip(owners, self._likelihoods(windows), strict=True):
            sums[owner] += one.logprob
        return self._told("loglikelihood_rolling", requests, sums)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of the task's stop texts.

        With num_beams the best answer of the whole search is cut at its first stop text; HFLM ends the search
        there.

        Raises: ConfigError for generation_kwargs that would not be heeded.
        """
        prompts = prompt_tokens([request.args[0] for request in requests], self._tokenizer)
        prefix = np.array([self.prefix_token_id], np.int32)
        groups: dict[Decoding, list[tuple[int, Request]]] = {}
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            given = dict(normalize_gen_kwargs(request.args[1], self.max_gen_toks))
            stop, new_tokens = given.pop("until"), given.pop("max_gen_toks")
            room = self.max_length - new_tokens
            if new_tokens < 1 or room < 1:
                raise ConfigError(
                    f"harness: max_gen_toks={new_tokens} given by task '{request.task_name}'; 1 to "
                    f"{self.max_length - 1} leave room for a prompt in "
                    f"model.max_positions={self.max_length}; change the task, or generate.max_new_tokens "
                    f"if it names none"
                )
            kept = self._cut(prompt if len(prompt) else prefix, room)
            asked = Request(kept, new_tokens, tuple(text for text in stop if text), key=index)
            decoding = _decoding(given, self._seed, request.task_name)
            groups.setdefault(decoding, []).append((index, asked))
        texts = [""] * len(requests)
        for decoding, group in groups.items():
            answers = generate(
                self._model, self._params, [asked for _, asked in group], decoding=decoding,
                tokenizer=self._tokenizer, eos_ids=self._eos_ids, **self._options,
            )  # fmt: skip
            for (index, _), answer in zip(group, answers, strict=True):
                texts[index] = answer.text
        return self._told("generate_until", requests, texts)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """The same for requests that are ids already, which the base class asks for."""
        pairs = [(np.array(prompt, np.int32), np.array(tokens, np.int32)) for _, prompt, tokens in requests]
        return [(one.logprob, one.is_greedy) for one in self._likelihoods(pairs)]

    def _likelihoods(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Likelihood]:
        continuations = []
        for prompt, tokens in pairs:
            room = self.max_length + 1 - len(tokens)  # the last token is not read
            if room < 1:
                raise DataError(
                    f"harness: a continuation has {len(tokens)} tokens; at most {self.max_length} fit "
                    f"model.max_positions={self.max_length}; take another task"
                )
            continuations.append(Continuation(self._cut(prompt, room), tokens))
        vocab_size = self._tokenizer.vocab_size
        return likelihoods(self._model, self._params, continuations, vocab_size=vocab_size, **self._options)

    def _cut(self, prompt: np.ndarray, room: int) -> np.ndarray:
        if len(prompt) <= room:
            return prompt
        (kept,), (lost,) = cut_prompts([prompt], room, self._tokenizer.bos_id if room > 1 else None)
        self.cut.update(prompts=1, tokens=lost)
        return kept

    def _told(self, kind: str, requests: list[Instance], answers: list[Any]) -> list[Any]:
        """The answers, told to lm-evaluation-harness' cache too."""
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return answers


def _parted(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the end of the context go over to the continuation.

    Example:
        >>> _parted("Is it true? ", "Yes")
        ('Is it true?', ' Yes')
    """
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _decoding(given: dict[str, Any], seed: int, task: str) -> Decoding:
    """The decoding that generation_kwargs ask for, as normalized by lm-evaluation-harness.

    A task that draws tokens and names no top_k draws from 50, which is the default of transformers.
    """
    if unknown := sorted(set(given) - set(_KNOWN)):
        raise ConfigError(
            f"harness: generation_kwargs of task '{task}' have '{unknown[0]}'; known are until, "
            f"max_gen_toks, {', '.join(_KNOWN)}; change the task"
        )
    if given.get("early_stopping"):
        raise ConfigError(
            f"harness: generation_kwargs of task '{task}' have early_stopping={given['early_stopping']}; "
            f"beams end as with false; change the task"
        )
    beams = {"beams": int(given.get("num_beams", 1)), "length_penalty": float(given.get("length_penalty", 1))}
    if given["do_sample"] and "temperature" not in given:
        raise ConfigError(
            f"harness: generation_kwargs of task '{task}' have do_sample without temperature; tokens are "
            f"drawn with one; change the task: name a temperature above 0"
        )
    temperature = float(given["temperature"]) if given["do_sample"] else 0.0
    if temperature == 0:
        return Decoding(**beams)
    drawn = {"top_k": int(given.get("top_k", _TOP_K)), "top_p": float(given.get("top_p", 1.0))}
    return Decoding(temperature=temperature, seed=seed, **beams, **drawn)
