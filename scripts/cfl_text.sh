#!/usr/bin/env bash
# CFL, checks of the prose: number of patches, negatives from the batch, five times the learning rate; on Table 1, row 4.
source "$(dirname "$0")/table.sh"
table cfl_text cityscapes
row cfl/text/patches_256 smoke:encoder=effnet_lite0 smoke:nce.patches=64
row cfl/text/patches_512 smoke:encoder=effnet_lite0 smoke:nce.patches=128
row cfl/table1/vgg_patchnce smoke:encoder=effnet_lite0
row cfl/text/patches_2048 smoke:encoder=effnet_lite0 smoke:nce.patches=512
row cfl/text/patches_4096 smoke:encoder=effnet_lite0 smoke:nce.patches=1024
row cfl/text/negatives_batch smoke:encoder=effnet_lite0
row cfl/text/rate_x5 smoke:encoder=effnet_lite0 smoke:train.lr=5e-3
run_table "$@"
