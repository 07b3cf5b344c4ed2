#!/usr/bin/env bash
# MoNCE, Table 3: paired, on SPADE's networks.
source "$(dirname "$0")/table.sh"
table monce_table3 ade20k celebahq_semantic celebahq_edge deepfashion
row monce/table3/gan
row monce/table3/perceptual smoke:encoder=effnet_lite0
row monce/table3/patchnce smoke:encoder=effnet_lite0
row monce/table3/weightnce smoke:encoder=effnet_lite0
row monce/table3/monce smoke:encoder=effnet_lite0
run_table "$@"
