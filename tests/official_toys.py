"""Small networks under the official names, and what the published formulas make of a picture.

Each maker returns a state dict and a function from images (B, 3, h, w) in [0, 1] to unit rows,
written with torchvision's layers or in plain steps; it shares no code with the package.
"""

import math

import torch
from torch import nn
from torch.nn.functional import normalize

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def randomised(module, seed=0):
    """The module in evaluation mode with weights that keep signals alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(1 + 0.1 * noise.abs())
            elif value.ndim <= 1 or value.shape[0] == 1:
                value.copy_((0.6 if name.endswith("weight") else 0) + 0.05 * noise)
            else:
                value.copy_(noise * math.sqrt(1.6 / math.prod(value.shape[1:])))
    return module.eval()


def gem(x, p, eps=1e-6):
    return x.clamp(min=eps).pow(p).mean(dim=(-2, -1)).pow(1 / p)


def resnet(bottleneck=True):
    """torchvision's children without pooling and classifier, one block a stage."""
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    network = ResNet(Bottleneck if bottleneck else BasicBlock, [1, 1, 1, 1], num_classes=1)
    return randomised(nn.Sequential(*list(network.children())[:-2]))


def head(prefixes, channels, out, p=2.7):
    linear = randomised(nn.Linear(channels, out), seed=5)
    pool, fc = prefixes
    state = {pool: torch.tensor([p]), f"{fc}.weight": linear.weight, f"{fc}.bias": linear.bias}
    return linear, {name: value.detach() for name, value in state.items()}


def under(prefix, module):
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def cirtorch():
    features = resnet()
    linear, rest = head(("pool.p", "whiten"), 2048, 12)
    state = {**under("features", features), **rest}
    return state, lambda x: normalize(linear(normalize(gem(features((x - MEAN) / STD), 2.7))))


def vgg_layers(kept):
    """VGG-11's features by hand: convolution, ReLU, pooling; the first ``kept`` of them."""
    layers, channels = [], 3
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return randomised(nn.Sequential(*layers[:kept]))


def cirtorch_vgg():
    features = vgg_layers(20)
    state = {**under("features", features), "pool.p": torch.tensor([2.7])}
    return state, lambda x: normalize(gem(features((x - MEAN) / STD), 2.7))


def cosplace(features, channels):
    linear, rest = head(("aggregation.1.p", "aggregation.3"), channels, 12)
    state = {**under("backbone", features), **rest}
    return state, lambda x: normalize(
        linear(gem(normalize(features((x - MEAN) / STD), dim=1), 2.7))
    )


def eigenplaces():
    return cosplace(resnet(bottleneck=False), 512)


def cosplace_vgg():
    return cosplace(vgg_layers(19), 512)


class Attention(nn.Module):
    """SOLAR's block in plain steps."""

    def __init__(self, channels, middle):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.ReLU())
        self.g = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.ReLU())
        self.h = nn.Conv2d(channels, middle, 1)
        self.v = nn.Conv2d(middle, channels, 1)

    def forward(self, x):
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))  # (B, m, N)
        weights = torch.einsum("bmi,bmj->bij", f, g).div(math.sqrt(f.shape[1])).softmax(dim=-1)
        return x + self.v(
            torch.einsum("bij,bmj->bmi", weights, h).reshape(len(x), -1, *x.shape[2:])
        )


def solar():
    stages = resnet()
    soa4, soa5 = randomised(Attention(1024, 256), 2), randomised(Attention(2048, 1024), 3)
    linear, rest = head(("pool.p", "whiten"), 2048, 12)
    state = {
        **under("features.conv1", nn.Sequential(*stages[:2])),
        **under("features.conv2_x", nn.Sequential(*stages[2:5])),
        **under("features.conv3_x", stages[5]),
        **under("features.conv4_x", stages[6]),
        **under("features.conv5_x", stages[7]),
        **under("features.soa4", soa4),
        **under("features.soa5", soa5),
        **rest,
    }

    def run(x):
        x = soa5(stages[7](soa4(stages[:7]((x - MEAN) / STD))))
        return normalize(linear(normalize(gem(x, 2.7))))

    return state, run


def pycls(name):
    """``4.0.conv1.weight`` → ``s1.b1.f.a.weight``."""
    first, rest = name.split(".", 1)
    if first in "01":
        return f"stem.{'conv' if first == '0' else 'bn'}.{rest}"
    block, layer = rest.split(".", 1)
    for old, new in (
        ("conv1", "f.a"),
        ("conv2", "f.b"),
        ("conv3", "f.c"),
        ("bn1", "f.a_bn"),
        ("bn2", "f.b_bn"),
        ("bn3", "f.c_bn"),
        ("downsample.0", "proj"),
        ("downsample.1", "bn"),
    ):
        if layer.startswith(old):
            return f"s{int(first) - 3}.b{int(block) + 1}.{new}{layer.removeprefix(old)}"
    raise AssertionError(name)


def bgr(x):
    return ((x - MEAN) / STD).flip(1)


def cvnet(features=None):
    features = features or resnet()
    linear, rest = head(("encoder_q.head.pool.p", "encoder_q.head.fc"), 2048, 12)
    state = {
        **{f"encoder_q.{pycls(k)}": v for k, v in features.state_dict().items()},
        **rest,
        "conv2ds.0.weight": torch.zeros(1),
        "cv_learner.mlp.0.bias": torch.zeros(1),
    }
    return state, lambda x: normalize(linear(gem(features(bgr(x)), 2.7)))


def regional(x, p=2.5):
    """Cell by cell over its 5 × 5 neighbours, mirrored at the border."""
    height, width = x.shape[2:]
    mirrored = lambda i, n: -i if i < 0 else 2 * (n - 1) - i if i >= n else i  # noqa: E731
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            around = [
                x[:, :, mirrored(i + a, height), mirrored(j + b, width)] ** p
                for a in range(-2, 3)
                for b in range(-2, 3)
            ]
            out[:, :, i, j] = x[:, :, i, j] / 2 + (sum(around) / 25) ** (1 / p) / 2
    return out


def superglobal(relup=False, additions=True):
    features = resnet()
    state, _ = cvnet(features)
    state |= {f"encoder_q.{n}.weight": torch.zeros(1) for n in ("seb1", "seb2", "sefc")}
    weight, bias = state["encoder_q.head.fc.weight"], state["encoder_q.head.fc.bias"]

    def run(x):
        x = features[:4](bgr(x))
        for number, stage in enumerate(features[4:], start=1):
            for block in stage:
                low = 0.014 if number == 1 else 0.0
                y = block.bn1(block.conv1(x)).clamp(min=low)
                y = block.bn3(block.conv3(block.bn2(block.conv2(y)).clamp(min=low)))
                shortcut = block.downsample(x) if block.downsample is not None else x
                x = (y + shortcut).clamp(min=0.014 if relup and number < 4 else 0.0)
        pooled = gem(regional(x), 4.6, 1e-8) if additions else gem(x, 2.7)
        return normalize(normalize(pooled) @ weight.T + bias)

    return state, run


def transformer(prefix, channels=64, depth=2, side=4):
    """Names and weights of a small DINOv2."""
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "cls_token": (1, 1, channels),
        "pos_embed": (1, 1 + side**2, channels),
        "mask_token": (1, channels),
        "patch_embed.proj.weight": (channels, 3, 14, 14),
        "patch_embed.proj.bias": (channels,),
        "norm.weight": (channels,),
        "norm.bias": (channels,),
    }
    for i in range(depth):
        for name, shape in {
            "norm1": (channels,),
            "attn.qkv": (3 * channels, channels),
            "ls1": (channels,),
            "attn.proj": (channels, channels),
            "norm2": (channels,),
            "ls2": (channels,),
            "mlp.fc1": (4 * channels, channels),
            "mlp.fc2": (channels, 4 * channels),
        }.items():
            if name.startswith("ls"):
                shapes[f"blocks.{i}.{name}.gamma"] = shape
            else:
                shapes[f"blocks.{i}.{name}.weight"] = shape
                shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    return {
        f"{prefix}.{n}": torch.randn(s, generator=generator) / math.sqrt(max(1, math.prod(s[1:])))
        for n, s in shapes.items()
    }


def run_transformer(w, images):
    """DINOv2 in plain steps, from weights ``w`` by name: map and class token."""
    from torchvision.transforms.functional import resize

    size = [round(side / 14) * 14 for side in images.shape[2:]]
    x = resize((images - MEAN) / STD, size, antialias=True)
    x = nn.functional.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], 14)
    (height, width), channels = x.shape[2:], x.shape[1]
    positions = w["pos_embed"][:, 1:]
    side = math.isqrt(positions.shape[1])
    if (side, side) != (height, width):
        positions = (
            nn.functional.interpolate(
                positions.reshape(1, side, side, channels).permute(0, 3, 1, 2),
                mode="bicubic",
                scale_factor=((height + 0.1) / side, (width + 0.1) / side),
            )
            .permute(0, 2, 3, 1)
            .reshape(1, -1, channels)
        )
    first = (w["cls_token"] + w["pos_embed"][:, :1]).repeat(len(x), 1, 1)
    x = torch.cat([first, x.flatten(2).transpose(1, 2) + positions], dim=1)
    norm = lambda x, n: nn.functional.layer_norm(  # noqa: E731
        x, (channels,), w[f"{n}.weight"], w[f"{n}.bias"], 1e-6
    )
    linear = lambda x, n: x @ w[f"{n}.weight"].T + w[f"{n}.bias"]  # noqa: E731
    for i in range(len({n.split(".")[1] for n in w if n.startswith("blocks.")})):
        b = f"blocks.{i}"
        qkv = linear(norm(x, f"{b}.norm1"), f"{b}.attn.qkv").chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (channels // 64, 64)).transpose(1, 2) for t in qkv)
        mixed = (q @ k.transpose(-1, -2) / 8).softmax(dim=-1) @ v
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{b}.attn.proj")
        x = x + w[f"{b}.ls1.gamma"] * mixed
        inner = nn.functional.gelu(linear(norm(x, f"{b}.norm2"), f"{b}.mlp.fc1"))
        x = x + w[f"{b}.ls2.gamma"] * linear(inner, f"{b}.mlp.fc2")
    x = norm(x, "norm")
    return x[:, 1:].transpose(1, 2).reshape(-1, channels, height, width), x[:, 0]


def sinkhorn(scores, dustbin, rounds=3):
    """One image's (M, N) scores → (M, N) shares, by scaling the exponentials themselves."""
    clusters, cells = scores.shape
    mass = torch.cat([scores, dustbin.expand(1, cells)]).double().exp()
    rows = torch.ones(clusters + 1, dtype=torch.float64)
    rows[-1] = cells - clusters
    right = torch.ones(cells, dtype=torch.float64)
    for _ in range(rounds):
        left = rows / (mass * right).sum(dim=1)
        right = 1 / (mass * left[:, None]).sum(dim=0)
    return (left[:, None] * mass * right)[:-1].float()


def aggregation(prefix, channels=64, hidden=24, clusters=5, cluster_dim=6, token_dim=7):
    def perceptron(out):
        first, last = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, out, 1)
        return nn.Sequential(first, nn.Identity(), nn.ReLU(), last)

    layers = {
        "token_features": nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, token_dim)
        ),
        "cluster_features": perceptron(cluster_dim),
        "score": perceptron(clusters),
    }
    state = {f"{prefix}.dust_bin": torch.tensor(0.6)}
    for number, (name, layer) in enumerate(layers.items()):
        state |= under(f"{prefix}.{name}", randomised(layer, number))

    def run(x, token):
        rows = []
        for one, t in zip(x, token, strict=True):
            share = sinkhorn(layers["score"](one[None])[0].flatten(1), torch.tensor(0.6))
            f = layers["cluster_features"](one[None])[0].flatten(1)
            v = torch.stack([normalize((f * s).sum(dim=1), dim=0) for s in share], dim=1)
            t = normalize(layers["token_features"](t), dim=0)
            rows.append(normalize(torch.cat([t, v.flatten()]), dim=0))
        return torch.stack(rows)

    return state, run


def salad():
    weights = transformer("backbone.model")
    state, run = aggregation("aggregator")
    plain = {name.removeprefix("backbone.model."): value for name, value in weights.items()}
    return {**weights, **state}, lambda x: run(*run_transformer(plain, x))


def megaloc():
    weights = transformer("backbone")
    state, run = aggregation("aggregator.agg")
    linear = randomised(nn.Linear(7 + 5 * 6, 9), seed=9)
    plain = {name.removeprefix("backbone."): value for name, value in weights.items()}
    state = {**weights, **state, **under("aggregator.linear", linear)}
    return state, lambda x: normalize(linear(run(*run_transformer(plain, x))))


# kind, and network where it is not a ResNet → maker
TOYS = {
    "cirtorch": cirtorch,
    "cirtorch vgg": cirtorch_vgg,
    "solar": solar,
    "cvnet": cvnet,
    "superglobal": superglobal,
    "superglobal-plain-relup": lambda: superglobal(relup=True, additions=False),
    "eigenplaces": eigenplaces,
    "cosplace vgg": cosplace_vgg,
    "salad": salad,
    "megaloc": megaloc,
}
