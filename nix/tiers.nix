# What each tier's image carries and defaults to; data only.
let
  # Folder in /opt/comfyui-nodes -> flake input. A new node is one line here, one input, and its needs in
  # environments/comfyui.toml.
  nodes = {
    ComfyUI-Chatterbox = "comfyui-chatterbox";
    ComfyUI-FlashPortrait = "comfyui-flashportrait";
    ComfyUI-GGUF = "comfyui-gguf";
    ComfyUI-KJNodes = "comfyui-kjnodes";
    ComfyUI-SCAIL-Pose = "comfyui-scail-pose";
    ComfyUI-VideoHelperSuite = "comfyui-videohelpersuite";
    ComfyUI-WanAnimatePreprocess = "comfyui-wananimatepreprocess";
    ComfyUI-WanVideoWrapper = "comfyui-wanvideowrapper";
    Comfyui_turbodiffusion = "comfyui-turbodiffusion";
    VibeVoice-ComfyUI = "vibevoice-comfyui";
    comfyui_controlnet_aux = "comfyui-controlnet-aux";
  };

  # Folders that a node makes in its own: they lead to the volume.
  nodeFolders = [
    "ComfyUI-WanVideoWrapper/text_embed_cache"
    "comfyui_controlnet_aux/ckpts"
  ];

  full = defaults: {
    # One layer for each list of groups.
    userland = [
      [ "core" ]
      [
        "media"
        "build"
        "shell"
      ]
    ];
    environments = [
      "comfyui"
      "xtts"
      "chatterbox"
      "jupyter"
      "runtime"
    ];
    comfyuiEnvironment = "comfyui";
    comfyui = "comfyui";
    comfyuiArguments = [ "--enable-manager" ];
    inherit nodes nodeFolders defaults;
    catalogue = ../python/hearmeman/models/catalogue.toml;
  };
in
rec {
  # Boots anywhere, without a GPU and without ComfyUI: the demo and the tests run it.
  smoke = {
    userland = [ [ "core" ] ];
    environments = [ "runtime" ];
    # The environment that runs ComfyUI, and its source: null is the stand-in of tests/standin.
    comfyuiEnvironment = "runtime";
    comfyui = null;
    comfyuiArguments = [ ];
    nodes = { };
    nodeFolders = [ ];
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

  # 8 to 24 GB of GPU memory.
  consumer = full { GPU_TIER = "auto"; };

  # 24 to 48 GB.
  prosumer = full { GPU_TIER = "auto"; };

  # 48 GB and more.
  datacenter = full { GPU_TIER = "auto"; };
}
