"""Networks of many families, untrained and small, each with a call: what `benchmarks.networks` exports and runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

__all__ = ["CASES", "Case"]

Case = Callable[[], tuple[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]]
"""Makes a network and the arguments of one call."""

_BATCH = 2


def vision(name: str, size: int = 64, **options: Any) -> Case:
    """Return a classifier or another network of torchvision that takes images."""

    def make() -> Any:
        network = torchvision.models.get_model(name, weights=None, **options)
        return network, ((torch.rand(_BATCH, 3, size, size),), {})

    return make


def segmenter(name: str, size: int = 64) -> Case:
    return vision(name, size, weights_backbone=None, num_classes=5)


def detector(name: str, size: int = 320) -> Case:
    def make() -> Any:
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
        return network, (([torch.rand(3, size, size)],), {})

    return make


def video(name: str, frames: int = 8, size: int = 64) -> Case:
    def make() -> Any:
        network = torchvision.models.get_model(name, weights=None, num_classes=10)
        return network, ((torch.rand(_BATCH, 3, frames, size, size),), {})

    return make


def timm_model(name: str, size: int = 64, *, sized: bool = False) -> Case:
    """Return a network of timm; those that are built for one size are told it."""

    def make() -> Any:
        import timm

        options = {"img_size": size} if sized else {}
        network = timm.create_model(name, pretrained=False, num_classes=10, **options)
        return network, ((torch.rand(_BATCH, 3, size, size),), {})

    return make


_TEXT = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def text(model: str, config: str, **options: Any) -> Case:
    """Return a small text model of transformers, called with tokens."""

    def make() -> Any:
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(**options))
        for module in network.modules():  # an encoder and a decoder have configurations of their own
            if hasattr(module, "config"):
                module.config.use_cache = False
        tokens = torch.randint(3, 100, (_BATCH, 16))
        given = {"input_ids": tokens}
        if network.config.is_encoder_decoder:
            given["decoder_input_ids"] = torch.randint(3, 100, (_BATCH, 12))
        return network, ((), given)

    return make


def hugging_face(model: str, config: str, inputs: Callable[[], dict[str, Tensor]], **options: Any) -> Case:
    """Return a small model of transformers, called with what is given."""

    def make() -> Any:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options)), ((), inputs())

    return make


def clip() -> Any:
    import transformers

    encoder = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = transformers.CLIPConfig(
        text_config={**encoder, "vocab_size": 100, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1},
        vision_config={**encoder, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    tokens = torch.randint(3, 100, (_BATCH, 16))
    return transformers.CLIPModel(config), ((), {"input_ids": tokens, "pixel_values": torch.rand(_BATCH, 3, 64, 64)})


class Tagger(nn.Module):
    """A recurrent network over tokens, with an output for each."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.recurrent = kind(32, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[0])


def tagger(kind: type[nn.LSTM] | type[nn.GRU]) -> Case:
    return lambda: (Tagger(kind), ((torch.randint(0, 100, (_BATCH, 12)),), {}))


class UNet(nn.Module):
    """Two scales, with transposed convolutions on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._block(3, 16), self._block(16, 32), self._block(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.merge2, self.merge1 = self._block(64, 32), self._block(32, 16)
        self.head = nn.Conv2d(16, 4, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        below = self.bottom(nn.functional.max_pool2d(second, 2))
        second = self.merge2(torch.cat([second, self.up2(below)], dim=1))
        return self.head(self.merge1(torch.cat([first, self.up1(second)], dim=1)))


class VariationalAutoencoder(nn.Module):
    """Convolutions to the mean of a code and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU(), nn.Flatten()
        )
        self.code, self.back = nn.Linear(32 * 8 * 8, 16), nn.Linear(16, 32 * 8 * 8)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (32, 8, 8)), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.back(self.code(self.encoder(x))))


def generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(16, 64, 4, 1, 0, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


class PointNet(nn.Module):
    """A network of point sets: shared layers for each point, the largest of each feature, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(
            nn.Conv1d(3, 32, 1, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 128, 1, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).amax(-1))


class Dilated(nn.Module):
    """A temporal convolutional network with gates and residuals over a waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 1)
        self.gated = nn.ModuleList(nn.Conv1d(16, 32, 3, padding=2**n, dilation=2**n) for n in range(4))
        self.out = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.head = nn.Conv1d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for gated, out in zip(self.gated, self.out, strict=True):
            one, other = gated(x).chunk(2, dim=1)
            x = x + out(torch.tanh(one) * torch.sigmoid(other))
        return self.head(x)


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3)
        )


def own(make: Callable[[], nn.Module], *shape: int) -> Case:
    return lambda: (make(), ((torch.rand(_BATCH, *shape),), {}))


def _pixels() -> dict[str, Tensor]:
    return {"pixel_values": torch.rand(_BATCH, 3, 64, 64)}


def _waveform() -> dict[str, Tensor]:
    return {"input_values": torch.randn(_BATCH, 3200)}


_SPEECH = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "conv_dim": (32, 32, 32), "conv_stride": (5, 4, 4), "conv_kernel": (10, 8, 4), "vocab_size": 32,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "apply_spec_augment": False,
}  # fmt: skip

CASES: dict[str, Case] = {
    # Convolutions of torchvision
    **{
        name: vision(name)
        for name in (
            "resnet18", "resnet50", "resnext50_32x4d", "squeezenet1_1", "densenet121", "googlenet",
            "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0",
            "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny",
        )
    },
    "alexnet": vision("alexnet", 96),
    "vgg11_bn": vision("vgg11_bn", 32),
    "inception_v3": vision("inception_v3", 96, init_weights=False, aux_logits=False),
    # Transformers of torchvision
    "vit_b_16": vision("vit_b_16", 64, image_size=64),
    "swin_t": vision("swin_t"),
    "swin_v2_t": vision("swin_v2_t"),
    # Other tasks of torchvision
    "fcn_resnet50": segmenter("fcn_resnet50"),
    "deeplabv3_mobilenet_v3_large": segmenter("deeplabv3_mobilenet_v3_large"),
    "lraspp_mobilenet_v3_large": segmenter("lraspp_mobilenet_v3_large"),
    "ssd300_vgg16": detector("ssd300_vgg16", 300),
    "ssdlite320_mobilenet_v3_large": detector("ssdlite320_mobilenet_v3_large"),
    "retinanet_resnet50_fpn": detector("retinanet_resnet50_fpn", 128),
    "fcos_resnet50_fpn": detector("fcos_resnet50_fpn", 128),
    "fasterrcnn_mobilenet_v3_large_320_fpn": detector("fasterrcnn_mobilenet_v3_large_320_fpn"),
    "r3d_18": video("r3d_18"),
    # Convolutions of timm
    **{
        name: timm_model(name)
        for name in (
            "skresnet18", "resnest14d", "legacy_seresnet18", "ecaresnet26t", "gernet_s", "repvgg_a0", "ghostnet_100",
            "mixnet_s", "tf_efficientnet_lite0", "hardcorenas_a", "res2net50_14w_8s", "dla34", "hrnet_w18_small",
            "dpn48b", "ese_vovnet19b_dw", "cspresnet50", "darknet53", "nf_resnet26", "selecsls42", "tinynet_e",
            "lcnet_050", "rexnet_100", "fbnetc_100", "repvit_m0_9", "starnet_s1", "mobileone_s0",
            "mobilenetv4_conv_small", "convnextv2_atto", "hgnetv2_b0", "fastvit_t8", "mambaout_femto", "resnetv2_50",
            "inception_next_atto", "poolformer_s12", "focalnet_tiny_srf",
        )
    },
    "xception41": timm_model("xception41", 96),
    "inception_v4": timm_model("inception_v4", 96),
    # Transformers and mixers of timm
    **{
        name: timm_model(name, sized=True)
        for name in (
            "deit_tiny_patch16_224", "cait_xxs24_224", "resmlp_12_224", "gmlp_ti16_224", "xcit_nano_12_p16_224",
        )
    },
    **{name: timm_model(name, 64) for name in ("mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "davit_tiny")},
    "levit_128s": timm_model("levit_128s", 224),
    "pit_ti_224": timm_model("pit_ti_224", 224),
    "coat_lite_tiny": timm_model("coat_lite_tiny", 64, sized=True),
    "twins_svt_small": timm_model("twins_svt_small", 64, sized=True),
    "efficientvit_b0": timm_model("efficientvit_b0", 64),
    "efficientvit_m0": timm_model("efficientvit_m0", 224),
    "coatnet_nano_rw_224": timm_model("coatnet_nano_rw_224", 64, sized=True),
    "eva02_tiny_patch14_224": timm_model("eva02_tiny_patch14_224", 56, sized=True),
    # Text
    "bert": text("BertForSequenceClassification", "BertConfig", intermediate_size=128, **_TEXT),
    "roberta": text("RobertaForSequenceClassification", "RobertaConfig", intermediate_size=128, **_TEXT),
    "distilbert": text(
        "DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=100, dim=64, n_layers=2, n_heads=4,
        hidden_dim=128,
    ),
    "albert": text(
        "AlbertForSequenceClassification", "AlbertConfig", embedding_size=32, intermediate_size=128, **_TEXT
    ),
    "electra": text(
        "ElectraForSequenceClassification", "ElectraConfig", embedding_size=32, intermediate_size=128, **_TEXT
    ),
    "mobilebert": text(
        "MobileBertForSequenceClassification", "MobileBertConfig", vocab_size=100, hidden_size=64,
        num_hidden_layers=2, embedding_size=32, intra_bottleneck_size=32, intermediate_size=64,
    ),
    "gpt2": text("GPT2LMHeadModel", "GPT2Config", vocab_size=100, n_layer=2, n_head=4, n_embd=64, n_positions=64),
    "opt": text(
        "OPTForCausalLM", "OPTConfig", ffn_dim=128, word_embed_proj_dim=64, max_position_embeddings=64, **_TEXT
    ),
    "llama": text("LlamaForCausalLM", "LlamaConfig", intermediate_size=128, **_TEXT),
    "t5": text(
        "T5ForConditionalGeneration", "T5Config", vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=2,
        num_heads=4, decoder_start_token_id=0,
    ),
    "bart": text(
        "BartForConditionalGeneration", "BartConfig", vocab_size=100, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128,
        max_position_embeddings=64,
    ),
    # Other models of transformers
    "clip": clip,
    "vit_hf": hugging_face(
        "ViTForImageClassification", "ViTConfig", _pixels, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, image_size=64,
    ),
    "segformer": hugging_face("SegformerForSemanticSegmentation", "SegformerConfig", _pixels),
    "detr": hugging_face(
        "DetrForObjectDetection", "DetrConfig", _pixels, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, backbone_config={"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage4"]}, d_model=64, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        num_queries=10,
    ),
    "wav2vec2": hugging_face("Wav2Vec2ForCTC", "Wav2Vec2Config", _waveform, **_SPEECH),
    "hubert": hugging_face("HubertForCTC", "HubertConfig", _waveform, **_SPEECH),
    # Others
    "lstm_tagger": tagger(nn.LSTM),
    "gru_tagger": tagger(nn.GRU),
    "unet": own(UNet, 3, 32, 32),
    "autoencoder": own(VariationalAutoencoder, 3, 32, 32),
    "generator": own(generator, 16, 1, 1),
    "pointnet": own(PointNet, 3, 64),
    "dilated_waveform": own(Dilated, 1, 256),
    "perceptron": own(Perceptron, 20),
}  # fmt: skip
