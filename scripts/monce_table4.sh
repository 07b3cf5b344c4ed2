#!/usr/bin/env bash
# MoNCE, Table 4: one or both directions, VGG19 frozen, trained on or from scratch. Row 6 is Table 3's, by its name.
source "$(dirname "$0")/table.sh"
table monce_table4 ade20k
row monce/table4/bidirectional_frozen smoke:encoder=effnet_lite0
row monce/table4/bidirectional_trained smoke:encoder=effnet_lite0 smoke:encoder.frozen=false
row monce/table4/bidirectional_scratch smoke:encoder=effnet_lite0 smoke:encoder.frozen=false smoke:encoder.pretrained=false
row monce/table4/scratch smoke:encoder=effnet_lite0 smoke:encoder.frozen=false smoke:encoder.pretrained=false
row monce/table4/trained smoke:encoder=effnet_lite0 smoke:encoder.frozen=false
row monce/table3/monce smoke:encoder=effnet_lite0
run_table "$@"
