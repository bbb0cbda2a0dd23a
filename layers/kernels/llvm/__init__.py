"""Microkernels emitted in LLVM's intermediate language, and the elementary functions."""
