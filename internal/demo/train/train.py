"""Trains the demo's tokenizer and model on the generated corpus and writes the model directory.

    go run ./internal/demo/generate -out WORK
    /usr/bin/python3 internal/demo/train/train.py --work WORK --out internal/demo/assets/model

Needs Python 3.11, PyTorch 1.13, NumPy and onnx 1.12 (Debian: python3-torch python3-numpy python3-onnx). Seeded;
a few minutes on two cores. Nothing of it is needed to build or run dpo-pipe.
"""
import argparse
import json
import math
import os
import time

import torch
from torch.nn import functional as F

import bpe
import graph
import model

SEED = 7
STEPS, BATCH, PEAK_LR, WARMUP = 1600, 32, 4e-3, 50
HELD_OUT = 1000  # texts at the corpus' end that training never sees


def read_texts(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]


def batches(rows, steps):
    """Batches of similar length, in a new order every epoch."""
    done = 0
    while True:
        order = torch.randperm(len(rows)).tolist()
        for at in range(0, len(order), BATCH * 16):
            window = sorted(order[at:at + BATCH * 16], key=lambda i: len(rows[i]))
            chunks = [window[i:i + BATCH] for i in range(0, len(window), BATCH)]
            for j in torch.randperm(len(chunks)).tolist():
                if done == steps:
                    return
                done += 1
                yield [rows[i] for i in chunks[j]]


def loss_of(net, rows):
    """Mean negative log-likelihood in nats a token, of every token but the first."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=-1)
    logits = net(ids[:, :-1].clamp(min=0))
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1)


def learning_rate(step):
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    return PEAK_LR * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))))


def train(rows):
    net = model.Llama()
    decay = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            betas=(0.9, 0.98))
    start, mean = time.time(), None
    for step, batch in enumerate(batches(rows, STEPS)):
        for group in opt.param_groups:
            group["lr"] = learning_rate(step)
        loss = loss_of(net, batch)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} loss {mean:.4f} seconds {time.time() - start:.0f}", flush=True)
    return net, mean


def held_out_loss(net, rows):
    with torch.no_grad():
        parts = [(loss_of(net, rows[i:i + 50]).item(), sum(len(r) - 1 for r in rows[i:i + 50]))
                 for i in range(0, len(rows), 50)]
    return sum(loss * n for loss, n in parts) / sum(n for _, n in parts)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=2)
        f.write("\n")


def write_configs(out):
    token = {"content": bpe.EOS, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    write_json(f"{out}/config.json", model.CONFIG)
    write_json(f"{out}/generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0})
    write_json(f"{out}/special_tokens_map.json",
               {"bos_token": token, "eos_token": token, "pad_token": token, "unk_token": token})
    write_json(f"{out}/tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": {"0": {**token, "special": True}},
        "bos_token": bpe.EOS, "clean_up_tokenization_spaces": False, "eos_token": bpe.EOS,
        "model_max_length": model.CONFIG["max_position_embeddings"], "pad_token": bpe.EOS,
        "tokenizer_class": "GPT2Tokenizer", "unk_token": bpe.EOS})


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--work", required=True, help="folder with corpus.jsonl")
    args.add_argument("--out", required=True, help="model directory to write")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    os.makedirs(args.out, exist_ok=True)

    texts = read_texts(f"{args.work}/corpus.jsonl")
    tokens = bpe.train(texts[:-HELD_OUT], model.CONFIG["vocab_size"])
    rows = [tokens.encode(t) + [0] for t in texts]
    print(f"vocabulary {len(tokens.vocab)}, tokens in all {sum(map(len, rows))}", flush=True)

    tokens.write(f"{args.out}/tokenizer.json")
    net, loss = train(rows[:-HELD_OUT])
    held_out = held_out_loss(net, rows[-HELD_OUT:])
    print(f"training loss {loss:.4f}, held-out loss {held_out:.4f} perplexity {math.exp(held_out):.3f}")

    torch.save(net.state_dict(), f"{args.work}/model.pt")
    write_configs(args.out)
    graph.write(net, f"{args.out}/model.onnx")


if __name__ == "__main__":
    main()
