"""Measures the demo: what the reference thinks of the preferences, and what a LoRA head learns from them.

    /usr/bin/python3 internal/demo/train/measure.py --work WORK --assets internal/demo/assets

A second implementation of the main job, in PyTorch: the model's own hidden states, LoRA on the LM head, sigmoid
DPO. It prints the figures of README.md and writes testdata/golden_logprobs.json with --golden.
"""
import argparse
import json
import time

import torch
from torch.nn import functional as F

import bpe
import model
import train

RANK, ALPHA, BETA, LR, EPOCHS, BATCH, HELD_OUT = 16, 32.0, 0.3, 1e-3, 3, 16, 320

PROMPTS = [  # Prompts of demo.go
    "Customer: Hi, this is Maria. My kettle stopped heating after two days. Order 4821.\nAgent:",
    "Customer: How many days do I have to return a blender? Order 7306.\nAgent:",
    "Customer: Hello, Sam here. Where is my camera? Order 2954.\nAgent:",
]


def load(work, assets):
    net = model.Llama()
    net.load_state_dict(torch.load(f"{work}/model.pt"))
    with open(f"{assets}/model/tokenizer.json", encoding="utf-8") as f:
        tokens = bpe.BPE([tuple(m) for m in json.load(f)["model"]["merges"]])
    with open(f"{assets}/preferences.jsonl", encoding="utf-8") as f:
        return net.eval(), tokens, [json.loads(line) for line in f]


@torch.no_grad()
def features(net, tokens, texts):
    """For each (prompt, completion): hidden states [T,D] that predict the completion's ids [T], closing EOS included."""
    split = [(tokens.encode(prompt), tokens.encode(completion) + [0]) for prompt, completion in texts]
    for (prompt, completion), (head, tail) in zip(texts, split):
        assert tokens.encode(prompt + completion) == (head + tail)[:-1], prompt + completion
    out = []
    for at in range(0, len(split), 64):
        part = split[at:at + 64]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(h + t) for h, t in part], batch_first=True)
        states = net.hidden(ids)
        out += [(states[i, len(h) - 1:len(h) + len(t) - 1].clone(), torch.tensor(t)) for i, (h, t) in enumerate(part)]
    return out


def logps(weight, rows, a=None, b=None):
    """Summed log-probabilities of ragged rows [(hidden, ids)] under the head, in one product."""
    h, ids = torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])
    z = h @ weight.T
    if a is not None:
        z = z + ALPHA / RANK * (h @ a.T) @ b.T
    p = z.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(r[1]) for r in rows]))
    return torch.zeros(len(rows)).index_add(0, owner, p)


def report_reference(pairs, chosen, rejected, weight):
    """Accuracy of the reference and of length alone; 0.5 means that they know nothing."""
    with torch.no_grad():
        s_c, s_r = logps(weight, chosen), logps(weight, rejected)
    n_c = torch.tensor([float(len(r[1])) for r in chosen])
    n_r = torch.tensor([float(len(r[1])) for r in rejected])
    styles = sorted({p["id"].split("-")[2] for p in pairs})
    of_style = {st: torch.tensor([p["id"].endswith(st) for p in pairs]) for st in styles}
    print(f"pairs {len(pairs)}  summed log-prob chosen {s_c.mean():.2f} rejected {s_r.mean():.2f}")
    for name, better in (("summed", s_c > s_r), ("per token", s_c / n_c > s_r / n_r)):
        by = "  ".join(f"{st} {better[m].float().mean():.3f}" for st, m in of_style.items())
        print(f"reference accuracy, {name}: {better.float().mean():.3f} (held out {better[-HELD_OUT:].float().mean():.3f}; {by})")
    print(f"tokens chosen {n_c.mean():.2f} (sd {n_c.std():.2f}) rejected {n_r.mean():.2f} (sd {n_r.std():.2f})  "
          f"chosen longer {(n_c > n_r).float().mean():.3f} shorter {(n_c < n_r).float().mean():.3f}")
    print(f"length-only classifier: {length_classifier(n_c, n_r):.3f}")


def length_classifier(n_c, n_r):
    """Best accuracy of 'the reply whose length is likelier among chosen ones' fitted on all but the held-out pairs."""
    def hist(n):
        return torch.bincount(n[:-HELD_OUT].long(), minlength=100).float() + 1
    score = (hist(n_c) / hist(n_r)).log()
    a, b = score[n_c[-HELD_OUT:].long()], score[n_r[-HELD_OUT:].long()]
    return ((a > b).float() + 0.5 * (a == b).float()).mean()


def dpo(weight, chosen, rejected):
    """LoRA on the head, AdamW, linear warm-up of a tenth and cosine decay. Returns a, b."""
    torch.manual_seed(42)
    a = torch.empty(RANK, weight.shape[1])
    torch.nn.init.kaiming_uniform_(a, 5 ** 0.5)
    b = torch.zeros(weight.shape[0], RANK)
    a.requires_grad_(), b.requires_grad_()
    opt = torch.optim.AdamW([a, b], weight_decay=0.0)
    with torch.no_grad():
        reference = logps(weight, chosen) - logps(weight, rejected)
    n = len(chosen) - HELD_OUT
    steps = -(-n // BATCH) * EPOCHS
    done = 0
    for _ in range(EPOCHS):
        for idx in torch.randperm(n).split(BATCH):
            warm = min(1.0, (done + 1) / (0.1 * steps))
            opt.param_groups[0]["lr"] = LR * warm * 0.5 * (1 + torch.cos(torch.tensor(3.14159 * done / steps))).item()
            rows = [chosen[i] for i in idx] + [rejected[i] for i in idx]
            s = logps(weight, rows, a, b)
            loss = -F.logsigmoid(BETA * (s[:len(idx)] - s[len(idx):] - reference[idx])).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            done += 1
    return a.detach(), b.detach()


@torch.no_grad()
def greedy(net, tokens, weight, prompt, limit=60):
    ids = tokens.encode(prompt)
    start = len(ids)
    while len(ids) < start + limit:
        top = (net.hidden(torch.tensor([ids]))[0, -1] @ weight.T).argmax().item()
        if top == 0:
            break
        ids.append(top)
    return tokens.decode(ids[start:]) + ("" if len(ids) < start + limit else " [no end]")


def write_golden(path, net, tokens, pairs):
    """Ids and per-token log-probs of a few pairs, float32."""
    out = []
    with torch.no_grad():
        for p in pairs:
            for completion in (p["chosen"], p["rejected"]):
                [(h, ids)] = features(net, tokens, [(p["prompt"], completion)])
                lp = (h @ net.embed.weight.T).log_softmax(-1).gather(1, ids[:, None])[:, 0]
                prompt = tokens.encode(p["prompt"])
                out.append({"prompt": p["prompt"], "completion": completion, "ids": prompt + ids.tolist(),
                            "prompt_tokens": len(prompt), "token_logps": [round(v, 6) for v in lp.tolist()],
                            "sum": round(lp.double().sum().item(), 5)})
    train.write_json(path, {"format": 1, "made_by": "measure.py", "torch": torch.__version__, "cases": out})


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--work", required=True, help="folder with model.pt of train.py")
    args.add_argument("--assets", required=True, help="folder with model/ and preferences.jsonl")
    args.add_argument("--golden", help="golden_logprobs.json to write")
    args.add_argument("--show", type=int, default=6, help="held-out prompts to answer before and after")
    args = args.parse_args()
    torch.set_num_threads(2)
    net, tokens, pairs = load(args.work, args.assets)
    weight = net.embed.weight.detach()
    if args.golden:
        write_golden(args.golden, net, tokens, pairs[-6:])
    chosen = features(net, tokens, [(p["prompt"], p["chosen"]) for p in pairs])
    rejected = features(net, tokens, [(p["prompt"], p["rejected"]) for p in pairs])
    report_reference(pairs, chosen, rejected, weight)

    start = time.time()
    a, b = dpo(weight, chosen, rejected)
    seconds = time.time() - start
    with torch.no_grad():
        margin = (logps(weight, chosen, a, b) - logps(weight, rejected, a, b)
                  - logps(weight, chosen) + logps(weight, rejected))[-HELD_OUT:]
    by = {}
    for p, m in zip(pairs[-HELD_OUT:], margin.tolist()):
        by.setdefault(p["id"].split("-")[2], []).append(m > 0)
    print(f"LoRA head, {seconds:.0f} s: held-out accuracy {(margin > 0).float().mean():.3f}, "
          f"loss {-F.logsigmoid(BETA * margin).mean():.3f}; "
          + "  ".join(f"{st} {sum(v) / len(v):.3f}" for st, v in sorted(by.items())))
    merged = weight + ALPHA / RANK * b @ a
    for prompt in [*PROMPTS, *(p["prompt"] for p in pairs[-args.show:])]:
        print(f"\n{prompt}\n  before:{greedy(net, tokens, weight, prompt)}"
              f"\n  after: {greedy(net, tokens, merged, prompt)}")


if __name__ == "__main__":
    main()
