# Images with models baked in: which models each suffix stands for, in the order in which suffixes are written.
[
  {
    suffix = "wan720p";
    models = [ "wan-720p" ];
  }
  {
    suffix = "wan480p";
    models = [ "wan-480p" ];
  }
  {
    suffix = "illustrious";
    models = [ "illustrious" ];
  }
]
