# What each tier's image carries and defaults to; data only.
rec {
  # Boots anywhere, without a GPU and without ComfyUI: the demo and the tests run it.
  smoke = {
    userland = [ "core" ];
    environments = [ "runtime" ];
    # The environment that runs ComfyUI, and its source: null is the stand-in of tests/standin.
    comfyuiEnvironment = "runtime";
    comfyui = null;
    nodes = [ ];
    catalogue = ../tests/smoke/catalogue.toml;
    defaults = {
      ENABLE_CONTROLNET = "false";
      MODELS = "smoke";
    };
  };

  # The same with JupyterLab, which most of the tests and the demo do without.
  smoke-jupyter = smoke // {
    environments = [
      "jupyter"
      "runtime"
    ];
  };
}
