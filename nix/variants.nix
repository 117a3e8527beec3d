# Images with models baked in: the catalogue's models that each suffix stands for, in the order in which suffixes
# are written, and the tiers that have it (all but smoke where none are named).
[
  {
    suffix = "wan720p";
    models = [ "wan21-t2v-14b" ];
  }
  {
    suffix = "wan480p";
    models = [ "wan21-t2v-1.3b" ];
  }
  {
    suffix = "illustrious";
    models = [ "illustrious" ];
  }
  # One small file: what the tests bake.
  {
    suffix = "tiny";
    models = [ "smoke" ];
    tiers = [ "smoke" ];
  }
]
