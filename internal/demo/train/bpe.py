"""A byte-level BPE: trained here, written as a Hugging Face tokenizer.json."""
import collections
import json
import re

EOS = "<|endoftext|>"
# The GPT-2 pattern for ASCII text, which is all the corpus has.
PIECES = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + len(letters) - len(plain))
    return letters


LETTERS = byte_letters()


class BPE:
    """vocab: token -> id; ranks: pair of tokens -> rank of its merge."""

    def __init__(self, merges):
        self.merges = merges
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        tokens = [EOS, *sorted(LETTERS.values()), *("".join(m) for m in merges)]
        self.vocab = {t: i for i, t in enumerate(tokens)}
        self.cache = {}

    def encode(self, text):
        ids = []
        for piece in PIECES.findall(text):
            if piece not in self.cache:
                self.cache[piece] = [self.vocab[t] for t in self.split(piece)]
            ids += self.cache[piece]
        return ids

    def split(self, piece):
        parts = [LETTERS[b] for b in piece.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            best = min(pairs, key=lambda p: self.ranks.get(p, 1 << 30))
            if best not in self.ranks:
                break
            parts = merged(parts, best)
        return parts

    def decode(self, ids):
        tokens, bytes_of = list(self.vocab), {v: k for k, v in LETTERS.items()}
        text = "".join(tokens[i] for i in ids if i != self.vocab[EOS])
        return bytes(bytes_of[c] for c in text).decode("utf-8", "replace")

    def write(self, path):
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        special = {"id": 0, "content": EOS, "single_word": False, "lstrip": False, "rstrip": False,
                   "normalized": False, "special": True}
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                 "vocab": self.vocab, "merges": [list(m) for m in self.merges]}
        doc = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None,
               "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(doc, f, ensure_ascii=False, indent=1)
            f.write("\n")


def merged(parts, pair):
    out, i = [], 0
    while i < len(parts):
        if tuple(parts[i:i + 2]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


def train(texts, vocab_size):
    """Merges the most frequent pair of tokens (ties: the first in text order) until the vocabulary is full."""
    words = collections.Counter()
    for text in texts:
        assert text.isascii(), text
        words.update(PIECES.findall(text))
    split = {w: [LETTERS[b] for b in w.encode()] for w in words}
    merges = []
    while 257 + len(merges) < vocab_size:
        counts = collections.Counter()
        for w, parts in split.items():
            for pair in zip(parts, parts[1:]):
                counts[pair] += words[w]
        if not counts:
            break
        pair = min(counts, key=lambda p: (-counts[p], p))
        merges.append(pair)
        for w, parts in split.items():
            if pair[0] in parts:
                split[w] = merged(parts, pair)
    return BPE(merges)
