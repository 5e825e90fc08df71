#!/usr/bin/env bash
# What the platform runs: a task is in /in, and its results go to /out.
exec ymir-tmi ymir start "$@"
