"""Trains the SentencePiece models beside it and writes what the library makes of many texts to vectors.json.

Run with sentencepiece 0.2.3: python make_sentencepiece.py
"""
import json
import pathlib
import random

import sentencepiece as spm

HERE = pathlib.Path(__file__).parent
corpus = (HERE.parent / "bitnet-tiny" / "eval.txt").read_text().splitlines()
corpus += ["Grüße aus Köln, schöne Straße 12345!", "l'été à Paris, ça va très bien", "日本語の文章です。今日は天気がいい。"] * 20
corpus += ["def f(x):\n    return x[0] + 10  # indented", "a  b   c    d", "http://example.com/?q=1&r=2"] * 20

common = dict(sentence_iterator=None, model_type="bpe", character_coverage=0.9995, num_threads=1)


def train(name, **options):
    options = {**common, **options, "sentence_iterator": iter(corpus), "model_prefix": str(HERE / name)}
    spm.SentencePieceTrainer.train(**options)
    (HERE / f"{name}.vocab").unlink()


# As Llama 2's: no normalisation, a space before each text, bytes for what is missing.
train("llama2", vocab_size=1500, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
      remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
# The library's defaults as far as they are supported, and pieces taken whole.
train("plain", vocab_size=500, byte_fallback=False, normalization_rule_name="identity",
      user_defined_symbols=["<end>", "ing", "once", "<en"])
train("noprefix", vocab_size=400, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
      remove_extra_whitespaces=False, user_defined_symbols=["▁▁", "x1"])

texts = [
    "", " ", "  ", "a", " a", "a ", "  a  b  ", "Hello, world!", "Once upon a time", "once upon a time", "\n", "\n\n a",
    "\t tab\ttab", "Grüße aus Köln", "naïve café e\u0301", "日本語", "日本語の文章です。", "🚀🚀 rocket", "👩\u200d👩\u200d👧", "\u0000x",
    "▁", "▁▁ a▁b", "a\u2581", "<s>", "</s><unk>", "<0x41>", "<end>", "a<end>b", " <end> ", "<en<end>d>", "singing ringing",
    "1234567890", "3.14159e-10", "x1x1 x 1", "if (x == 10) {\n    return y;\n}", "aaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "http://example.com/?q=1&r=2", "\u00a0nbsp\u3000ideographic", "مرحبا بالعالم", "שלום", "Ω≈ç√∫˜µ≤≥÷", "\ufeffbom",
    "The quick brown fox jumps over the lazy dog.", "don't can't won't I'll", "UPPER lower MiXeD", "e\u0300\u0301\u0302",
]
rng = random.Random(5)
alphabet = list("abcdefgh ingonce<>/sx01▁ \n") + ["é", "日", "🚀", "  ", "the ", " and"]
texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(150)]
words = " ".join(corpus).split(" ")
texts += [" ".join(rng.choice(words) for _ in range(rng.randint(1, 12))) for _ in range(60)]

vectors = {}
for name in ["llama2", "plain", "noprefix"]:
    model = spm.SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
    vectors[name] = [[text, model.encode(text), model.decode(model.encode(text))] for text in texts]
text = json.dumps({"sentencepiece": spm.__version__, "models": vectors}, ensure_ascii=True)
(HERE / "vectors.json").write_text(text.replace("]], \"", "]],\n\"").replace("], [\"", "],\n[\"") + "\n")
