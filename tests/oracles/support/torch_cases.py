"""The benchmark's models written in PyTorch, under names of their own: what a state dict from elsewhere looks like."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def tiny():
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))


def mlp():
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))


class Residual(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.c1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(width)
        self.c2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.sc = nn.Sequential() if same else nn.Sequential(
            nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.sc(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
        for width in (16, 32, 64):
            for k in range(3):
                layers.append(Residual(before, width, 2 if k == 0 and width > 16 else 1))
                before = width
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(96, 256)
        self.r = nn.LSTM(256, 256, 2, batch_first=True)
        self.o = nn.Linear(256, 96)

    def forward(self, ids):
        return self.o(self.r(self.e(ids))[0])


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.pr = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.dn = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.qkv(self.n1(x)).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, width)
        x = x + self.pr(mixed)
        return x + self.dn(F.gelu(self.up(self.n2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.te, self.pe = nn.Embedding(96, 192), nn.Embedding(128, 192)
        self.bl = nn.Sequential(*[GptBlock(192, 6) for _ in range(4)])
        self.n, self.o = nn.LayerNorm(192), nn.Linear(192, 96, bias=False)

    def forward(self, ids):
        return self.o(self.n(self.bl(self.te(ids) + self.pe(torch.arange(ids.shape[1])))))


MODELS = {"tiny": tiny, "mlp": mlp, "cnn": cnn, "resnet20": ResNet20, "lstm": Lstm, "gpt": Gpt}


def make(case, x, seed=0):
    """A model whose norms have seen data; in evaluation mode."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = MODELS[case]()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:  # norms and biases begin at 1 and 0, which hides mistakes
                p.add_(0.1 * torch.randn_like(p))
        model.train()
        model(x)
    return model.eval()
