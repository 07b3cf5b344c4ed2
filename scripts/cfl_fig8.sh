#!/usr/bin/env bash
# CFL, Fig. 8: the loss of the GAN and of PatchNCE over training, the latter also of each layer and direction; both are
# rows of Table 1, and report.html draws them.
source "$(dirname "$0")/table.sh"
table cfl_fig8 cityscapes
row cfl/table1/vgg_gan_l1 smoke:encoder=effnet_lite0
row cfl/table1/vgg_patchnce smoke:encoder=effnet_lite0
run_table "$@"
