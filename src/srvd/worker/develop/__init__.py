"""What a pool under development has besides (setting `reload`): reports to the watcher, a page for broken code, the
terminal, static files of Django.
"""
