#!/usr/bin/env bash
# MoNCE, Fig. 3: easy and hard WeightNCE over beta. PatchNCE and the favourable direction at 0.1 are rows of Tables 1 and 3.
source "$(dirname "$0")/table.sh"
table monce_fig3 horse2zebra ade20k
small="smoke:encoder=effnet_lite0"
row monce/table1/patchnce on:horse2zebra
row monce/table1/weightnce on:horse2zebra
row monce/table3/patchnce on:ade20k $small
row monce/table3/weightnce on:ade20k $small
row monce/fig3/horse_easy on:horse2zebra loss.beta=0.1
row monce/fig3/ade_hard on:ade20k $small loss.beta=0.1
for beta in 0.5 1 2 5; do
    row monce/fig3/horse_hard on:horse2zebra loss.beta=$beta
    row monce/fig3/horse_easy on:horse2zebra loss.beta=$beta
    row monce/fig3/ade_hard on:ade20k $small loss.beta=$beta
    row monce/fig3/ade_easy on:ade20k $small loss.beta=$beta
done
run_table "$@"
