"""Stand-ins for unbabel-comet, BLEURT and bert-score, with the calls that their documentation shows.

They score what can be computed by hand: the share of the target's words that the text has.
"""

from pathlib import Path

# `predict` returns what can be read as .scores and ["scores"], as unbabel-comet 2.2.7 does.
COMET = """
import torch
def download_model(model, saving_directory=None, local_files_only=False):
    return "downloaded/" + model
def load_from_checkpoint(checkpoint_path, reload_hparams=False, strict=False, local_files_only=False):
    return Model(checkpoint_path)
class Prediction(dict):
    __getattr__ = dict.__getitem__
class Model:
    def __init__(self, path):
        assert path == "downloaded/Unbabel/wmt22-comet-da", path
    def predict(self, samples, batch_size=16, gpus=1, devices=None, mc_dropout=0, progress_bar=True,
                accelerator="auto", num_workers=None, length_batching=True):
        assert gpus == 0 and all(set(one) == {"src", "mt", "ref"} for one in samples)
        print("Predicting " * 20000)  # more than a pipe holds
        scores = [share(one["mt"], one["ref"]) - (one["mt"] == one["src"]) for one in samples]
        return Prediction(scores=scores, system_score=sum(scores) / len(scores))
def share(text, target):
    return sum(word in text.split() for word in target.split()) / len(target.split())
"""
TORCH = """
class cuda:
    def is_available():
        return False
"""
BLEURT = """
import os
class BleurtScorer:
    def __init__(self, checkpoint=None, predict_fn=None):
        assert os.path.isdir(checkpoint)
    def score(self, references, candidates, batch_size=None):
        return [sum(word in text.split() for word in target.split()) / len(target.split())
                for target, text in zip(references, candidates, strict=True)]
"""
BERTSCORE = """
class Numbers(list):
    def tolist(self):
        return list(self)
class Some:
    pass
class BERTScorer:
    def __init__(self, model_type=None, num_layers=None, batch_size=64, nthreads=4, all_layers=False, idf=False,
                 idf_sents=None, device=None, lang=None, rescale_with_baseline=False, baseline_path=None,
                 use_fast_tokenizer=False):
        self.num_layers = num_layers or 9
        self._tokenizer, self._model = Some(), Some()
        self._tokenizer.model_max_length = 10**30
        self._model.config = Some()
        self._model.config.max_position_embeddings = 512
    def score(self, cands, refs, verbose=False, batch_size=64, return_hash=False):
        assert all(text.strip() for text in [*cands, *refs]) and self._tokenizer.model_max_length == 510
        found = [sum(word in text.split() for word in target.split()) / len(target.split())
                 for target, text in zip(refs, cands, strict=True)]
        return Numbers([9.0] * len(found)), Numbers([8.0] * len(found)), Numbers(found)
"""
VERSIONS = {
    "unbabel_comet": ("unbabel-comet", "2.2.7"),
    "bleurt": ("BLEURT", "0.0.2"),
    "bert_score": ("bert-score", "0.3.13"),
    "transformers": ("transformers", "5.23.0"),
}


def install(folder: Path) -> Path:
    """Puts the stand-ins where PYTHONPATH can find them, with their versions."""
    files = {
        "comet/__init__.py": COMET,
        "torch/__init__.py": TORCH,
        "bleurt/__init__.py": "",
        "bleurt/score.py": BLEURT,
        "bert_score/__init__.py": BERTSCORE,
        "bert_score/utils.py": 'model2layers = {"bert-base-multilingual-cased": 9}',
    }
    for package, (name, version) in VERSIONS.items():
        files[f"{package}-{version}.dist-info/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
