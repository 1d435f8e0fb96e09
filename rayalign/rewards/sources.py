"""Where each scorer's weights come from by default. Imports nothing heavy, so that a list of them costs nothing."""

from __future__ import annotations

from rayalign.rewards.weights import Weights

_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

CLIP_MODEL = Weights("model", "", ("open_clip_config.json",))  # by default a name that open_clip knows
CLIP_PRETRAINED = Weights("pretrained", _CLIP_H, ("open_clip_model.safetensors|open_clip_pytorch_model.bin",))

PICKSCORE_MODEL = Weights("model", "yuvalkirstain/PickScore_v1", ("config.json", "model.safetensors|pytorch_model.bin"))
PICKSCORE_PROCESSOR = Weights(
    "processor",
    _CLIP_H,
    ("preprocessor_config.json|processor_config.json", "tokenizer_config.json", "tokenizer.json|vocab.json"),
)

HPS_V2 = Weights("weights", "xswu/HPSv2", ("HPS_v2_compressed.pt",))
HPS_V21 = Weights("weights", "xswu/HPSv2", ("HPS_v2.1_compressed.pt",))

AESTHETIC_MODEL = Weights(
    "model", "openai/clip-vit-large-patch14", ("config.json", "model.safetensors|pytorch_model.bin")
)
AESTHETIC_HEAD = Weights(
    "head",
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    ("sac+logos+ava1-l14-linearMSE.pth",),
)
AESTHETIC_HEAD_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"

IMAGEREWARD_MODEL = Weights("model", "THUDM/ImageReward", ("ImageReward.pt", "med_config.json"))
IMAGEREWARD_TOKENIZER = Weights("tokenizer", "bert-base-uncased", ("vocab.txt",))
