#!/usr/bin/env bash
# CFL, Table 2: PatchNCE in one or both directions, with VGG19 frozen, trained on or from scratch. Rows 1 and 7 are Table 1's, by its names.
source "$(dirname "$0")/table.sh"
table cfl_table2 cityscapes
short="smoke:encoder=effnet_lite0 smoke:encoder.layers=[block2,block4,block10]"
frozen="smoke:encoder=effnet_lite0"
trained="smoke:encoder=effnet_lite0 smoke:encoder.frozen=false"
scratch="$trained smoke:encoder.pretrained=false"
row cfl/table1/vgg_gan_patchnce $short
row cfl/table2/gan_frozen_standard $frozen
row cfl/table2/gan_trained_bidirectional $trained
row cfl/table2/gan_trained_standard $trained
row cfl/table2/gan_scratch_bidirectional $scratch
row cfl/table2/gan_scratch_standard $scratch
row cfl/table1/vgg_patchnce $short
row cfl/table2/frozen_bidirectional $frozen
row cfl/table2/frozen_standard $frozen
row cfl/table2/trained_bidirectional $trained
row cfl/table2/scratch_bidirectional $scratch
row cfl/table2/trained_standard $trained
row cfl/table2/scratch_standard $scratch
run_table "$@"
