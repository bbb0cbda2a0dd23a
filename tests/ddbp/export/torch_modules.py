"""The modules of PyTorch that the models of the table are exchanged with."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...layers.families import torch_models

lenet5, resnet20 = torch_models.lenet5, torch_models.resnet20
PAGE = Path(__file__).parents[3] / "docs" / "models-in-and-out.md"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 4))


def _forward_forward(*layers: nn.Module) -> nn.Module:
    """Return the module that the page has for networks that learned by forward-forward."""
    found = re.search(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(compile(found[1], PAGE, "exec"), names)
    module: nn.Module = names["ForwardForward"](*layers)
    return module


def mlp_by_forward_forward() -> nn.Module:
    return _forward_forward(*mlp().children())


def small_cnn_by_forward_forward() -> nn.Module:
    return _forward_forward(*small_cnn(2, 32).children())


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))


def small_cnn(channels: int = 1, flattened: int = 72) -> nn.Module:
    first = [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *first, *second, nn.Flatten(), nn.Linear(flattened, 9), nn.ReLU(), nn.Linear(9, 10)
    )


class _Outputs(nn.Module):
    """A recurrent module that returns its outputs alone, under the names of the module itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)
        self.__dict__["module"] = module

    def forward(self, x: Any) -> Any:
        return self.module(x)[0]


def _recurrent(kind: Any, **options: Any) -> nn.Module:
    ways = 2 if options.get("bidirectional") else 1
    return nn.Sequential(_Outputs(kind(4, 5, batch_first=True, **options)), nn.Linear(5 * ways, 3))


_BOTH = {"num_layers": 2, "bidirectional": True}


def lstm() -> nn.Module:
    return _recurrent(nn.LSTM)


def lstm_both() -> nn.Module:
    return _recurrent(nn.LSTM, **_BOTH)


def gru() -> nn.Module:
    return _recurrent(nn.GRU)


def gru_both() -> nn.Module:
    return _recurrent(nn.GRU, **_BOTH)


def rnn() -> nn.Module:
    return _recurrent(nn.RNN, nonlinearity="relu")


def encoder() -> nn.Module:
    options = {"batch_first": True, "norm_first": True, "dropout": 0.0}
    return nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", **options),
        nn.TransformerEncoderLayer(8, 4, 32, activation="relu", **options),
    )


class _Attention(nn.Module):
    """Causal attention, named as in nanoGPT."""

    def __init__(self, features: int, heads: int, linear: Any) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = linear(features, 3 * features)
        self.c_proj = linear(features, features)

    def forward(self, x: Any) -> Any:
        n, t, c = x.shape
        parts = self.c_attn(x).split(c, dim=2)
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(n, t, c))


class _Block(nn.Module):
    def __init__(self, features: int, heads: int, linear: Any, approximate: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(features)
        self.attn = _Attention(features, heads, linear)
        self.ln_2 = nn.LayerNorm(features)
        self.mlp = nn.ModuleDict(
            {"c_fc": linear(features, 4 * features), "c_proj": linear(4 * features, features)}
        )
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        x = x + self.attn(self.ln_1(x))
        h = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate=self.approximate)
        return x + self.mlp["c_proj"](h)


class _Turned(nn.Module):
    """A dense layer whose weight is (inputs, outputs): GPT-2's, of Hugging Face."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Any) -> Any:
        return x @ self.weight + self.bias


class GPT(nn.Module):
    """A GPT with the names of nanoGPT and of GPT-2."""

    def __init__(self, linear: Any = nn.Linear, approximate: str = "none") -> None:
        super().__init__()
        features, heads = 12, 3
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(13, features),
                "wpe": nn.Embedding(8, features),
                "h": nn.ModuleList(_Block(features, heads, linear, approximate) for _ in range(2)),
                "ln_f": nn.LayerNorm(features),
            }
        )
        self.lm_head = nn.Linear(features, 13, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: Any) -> Any:
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


def gpt() -> nn.Module:
    return GPT()


def gpt2() -> nn.Module:
    return GPT(_Turned, "tanh")


class _ResNetBlock(nn.Module):
    """A residual block, named as in torchvision, with a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Any) -> Any:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 with the names of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16
        for number, outputs in enumerate((16, 32, 64), 1):
            blocks = [_ResNetBlock(width, outputs, 1 + (outputs > width))]
            blocks += [_ResNetBlock(outputs, outputs, 1) for _ in range(2)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            width = outputs
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))
