#!/usr/bin/env bash
# MoNCE, Fig. 7: WeightNCE and MoNCE over beta, with the prose's 0.01; PatchNCE, WeightNCE and MoNCE over Q. The points of beta 0.1 and Q 1 are rows of Tables 1 and 3, WeightNCE over beta is Fig. 3's.
source "$(dirname "$0")/table.sh"
table monce_fig7 horse2zebra ade20k
small="smoke:encoder=effnet_lite0"
for loss in patchnce weightnce monce; do
    row monce/table1/$loss on:horse2zebra
    row monce/table3/$loss on:ade20k $small
done
for beta in 0.5 1 2 5; do
    row monce/fig3/horse_hard on:horse2zebra loss.beta=$beta
    row monce/fig3/ade_easy on:ade20k $small loss.beta=$beta
done
for beta in 0.01 0.5 1 2 5; do
    row monce/fig7/horse_beta_monce on:horse2zebra loss.beta=$beta
    row monce/fig7/ade_beta_monce on:ade20k $small loss.beta=$beta
done
for q in 0.1 0.5 2 5; do
    for loss in patchnce weightnce monce; do
        row monce/fig7/horse_Q_$loss on:horse2zebra loss.q=$q
        row monce/fig7/ade_Q_$loss on:ade20k $small loss.q=$q
    done
done
run_table "$@"
