"""The isolated evaluation of training examples that monitors share."""
