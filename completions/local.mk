# Shell completion. bash reads the directory below any prefix in XDG_DATA_DIRS.

bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
dist_bashcompletion_DATA =
dist_zshcompletion_DATA =
