"""The commands that both trees run. They are the project's stable words, so that files may move between the trees."""

TRAIN = (
    "train.steps=20",
    "train.workers=0",
    "train.samples=1",
    "train.log_every=5",
    "train.save_every=10",
    "train.sample_every=10",
    "train.device=cpu",
    "model.generator.width=2",
    "model.discriminator.width=2",
    "nce.patches=16",
    "seed=3",
)
DRAWN = "dataset.lengths={train:8,val:2,test:4}"  # of generated data sets
PAIRED = (*TRAIN, DRAWN, "train.batch_size=2", "dataset.size=[64,64]")
UNPAIRED = (
    *TRAIN,
    DRAWN,
    "train.batch_size=2",
    "model=cut",
    "dataset=shapes_unpaired",
    "dataset.size=[32,32]",
    "model.generator.blocks=5",
    "setting=unpaired",
)
CONV, HEADS = "encoder=conv6", "objective.contrast.term.dim=8"
RAW_VGG = ("encoder=vgg16", "encoder.pretrained=false", "encoder.layers=[relu1_1,relu2_1]")
CYCLE = (*UNPAIRED[:-1], "setting=cycle", "objective=cycle", "loss=none")
CUT = (*UNPAIRED, "encoder=generator", "objective=cut", HEADS)
MONCE = "loss=monce"

TRAININGS: dict[str, tuple[str, ...]] = {
    "paired-contrast_gan": (*PAIRED, CONV, HEADS),
    "paired-contrast-monce": (*PAIRED, CONV, HEADS, "objective=contrast", MONCE, "train.log_layers=true"),
    "paired-contrast-weightnce": (*PAIRED, CONV, HEADS, "objective=contrast", "loss=weightnce"),
    "paired-contrast-batch": (*PAIRED, CONV, HEADS, "objective=contrast", "loss=patchnce_batch"),
    "paired-official": (*PAIRED, CONV, HEADS, "objective=contrast_gan", "loss=patchnce_official"),
    "paired-monce-official": (*PAIRED, CONV, "objective=spade", "loss=monce_official_spade"),
    "paired-l1-pixel": (*PAIRED, "encoder=pixel", "loss=l1", "objective=contrast"),
    "paired-patchnce-pixel": (*PAIRED, "encoder=pixel", "encoder.scales=[4,8]", "objective=contrast"),
    "paired-gan": (*PAIRED, "objective=gan", "loss=none", "gan=nonsaturating"),
    "paired-spade": (
        *PAIRED,
        CONV,
        "objective=spade",
        "loss=perceptual",
        "train.ttur=true",
        "train.regenerate_fake=true",
    ),
    "paired-lite": (*PAIRED, "encoder=effnet_lite0", HEADS, "objective=contrast"),
    "paired-accumulate": (*PAIRED, CONV, HEADS, "train.batch_size=4", "train.accumulate=2", "train.ema=0.9"),
    "paired-bf16": (*PAIRED, CONV, HEADS, "train.precision=bf16", MONCE),
    "paired-float64": (*PAIRED, CONV, HEADS, "train.precision=float64", MONCE),
    "paired-decay": (*PAIRED, CONV, HEADS, "train.decay_steps=10", "train.channels_last=false"),
    "paired-evaluated": (*PAIRED, CONV, HEADS, "evaluate.every=10", "evaluate.images=2", "evaluate.metrics=[swd]"),
    "unpaired-cut": CUT,
    "unpaired-cut-monce": (*CUT, MONCE, "train.log_layers=true"),
    "unpaired-cut-official": (*CUT, "loss=monce_official_cut"),
    "unpaired-cut-weightnce": (*CUT, "loss=weightnce", "train.batch_size=4", "train.accumulate=2"),
    "unpaired-cut-pool": (*CUT, "train.pool=3", "train.precision=bf16"),
    "unpaired-fastcut": (*UNPAIRED, "encoder=generator", "objective=fastcut", HEADS, "setting.flip_equivariance=true"),
    "unpaired-sesim": (*UNPAIRED, *RAW_VGG, "objective=sesim", "loss=none"),
    "unpaired-lsesim": (*UNPAIRED, *RAW_VGG, "objective=lsesim", "train.pool=3"),
    "unpaired-lsesim-monce": (*UNPAIRED, *RAW_VGG, "objective=lsesim", MONCE),
    "unpaired-gan": (*UNPAIRED, "objective=gan", "loss=none"),
    "cycle": (*CYCLE, "train.pool=3", "train.ema=0.9"),
    "cycle-accumulate": (*CYCLE, "train.batch_size=4", "train.accumulate=2"),
}
RANKS: dict[str, tuple[str, ...]] = {  # the same on two ranks
    name: TRAININGS[name]
    for name in (
        "paired-contrast_gan",
        "paired-spade",
        "paired-accumulate",
        "unpaired-cut-monce",
        "unpaired-lsesim",
        "cycle",
    )
}
PREPARED = (  # data sets whose raw trees `prepare.py dataset=synthetic` draws
    "ade20k",
    "camvid",
    "camvid_dusk",
    "cityscapes",
    "cityscapes_unpaired",
    "gta",
    "horse2zebra",
    "winter2summer",
    "celebahq_semantic",
    "celebahq_edge",
    "deepfashion",
    "nyu_depth",
)
EVALUATED = ("paired-contrast_gan", "unpaired-cut", "cycle")  # trainings whose runs evaluate.py measures
TWO_FOLDERS = "fd_lite2,kid_lite2,swd,appearance"  # metrics of any two folders that need no download
