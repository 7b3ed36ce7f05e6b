"""One contender per file: a program that runs one round of work whenever its channel says so."""
