"""Stops a pod that nobody uses, or that ran for as long as it may: a forgotten pod costs money every hour."""
