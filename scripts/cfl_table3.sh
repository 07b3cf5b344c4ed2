#!/usr/bin/env bash
# CFL, Table 3: ResNet50 and CUT's six-layer encoder. Row 2 has two readings, both are run.
source "$(dirname "$0")/table.sh"
table cfl_table3 cityscapes
frozen="smoke:encoder=effnet_lite0"
row cfl/table3/resnet_gan_standard $frozen
row cfl/table3/resnet_trained_gan_standard $frozen smoke:encoder.frozen=false
row cfl/table3/resnet_scratch_gan_standard $frozen smoke:encoder.frozen=false smoke:encoder.pretrained=false
row cfl/table3/resnet_gan_bidirectional $frozen
row cfl/table3/resnet_bidirectional $frozen
row cfl/table3/conv6_gan_standard smoke:encoder=conv6
row cfl/table3/conv6_standard smoke:encoder=conv6
row cfl/table3/conv6_gan_bidirectional smoke:encoder=conv6
row cfl/table3/conv6_bidirectional smoke:encoder=conv6
run_table "$@"
