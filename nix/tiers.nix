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

  # Package among ComfyUI's -> flake input: what our own nodes in ../comfyui_node import. Of the input's tree the folder
  # of that name and its licence are taken.
  packages = {
    Genfocus = "genfocus";
    mvinverse = "mvinverse";
  };

  # Folders that a node makes in its own: they lead to the volume.
  nodeFolders = [
    "ComfyUI-WanVideoWrapper/text_embed_cache"
    "comfyui_controlnet_aux/ckpts"
  ];

  # How boot starts a voice API; what stands in braces it fills in.
  served = api: environment: engine: [
    "/opt/env/${environment}/bin/python"
    "-P"
    "-m"
    "hearmeman_voice"
    api
    "--engine"
    engine
    "--host"
    "{host}"
    "--port"
    "{port}"
    "--voices"
    "{voices}"
    "--builtin-voices"
    "/opt/hearmeman/voices"
    "--models"
    "{models}"
    "--output"
    "{output}"
    "--queue"
    "{queue}"
  ];

  # hibari needs neither a GPU nor a download.
  withoutGpu = {
    chatterbox = served "chatterbox" "voice" "hibari";
    xtts = served "xtts" "voice" "hibari";
  };

  # `defaults` hold in every pod of the image, under what the pod itself sets; `recommended` is what its template turns
  # on, since each costs a download. Both are the specification's for the tier's memory.
  full = { defaults, recommended }: {
    # One layer for each list of groups.
    userland = [
      [ "core" ]
      [
        "speech"
        "media"
        "build"
        "shell"
      ]
    ];
    environments = [
      "comfyui"
      "xtts"
      "chatterbox"
      "voice"
      "jupyter"
      "worker"
      "runtime"
    ];
    services = {
      chatterbox = served "chatterbox" "chatterbox" "chatterbox";
      xtts = served "xtts" "xtts" "xtts";
    };
    # What is started instead where there is no GPU.
    servicesWithoutGpu = withoutGpu;
    comfyuiEnvironment = "comfyui";
    comfyui = "comfyui";
    comfyuiArguments = [ "--enable-manager" ];
    inherit
      nodes
      packages
      nodeFolders
      defaults
      recommended
      ;
    catalogue = ../python/hearmeman/models/catalogue.toml;
  };
in
rec {
  # Boots anywhere, without a GPU and without ComfyUI: the demo and the tests run it.
  smoke = {
    userland = [ [ "core" ] ];
    environments = [ "runtime" ];
    services = { };
    servicesWithoutGpu = { };
    # The environment that runs ComfyUI, and its source: null is the stand-in of tests/standin.
    comfyuiEnvironment = "runtime";
    comfyui = null;
    comfyuiArguments = [ ];
    nodes = { };
    packages = { };
    nodeFolders = [ ];
    catalogue = ../tests/smoke/catalogue.toml;
    defaults = {
      ENABLE_CONTROLNET = "false";
      MODELS = "smoke";
    };
    recommended = { };
  };

  # The same with JupyterLab, which most of the tests and the demo do without.
  smoke-jupyter = smoke // {
    environments = [
      "jupyter"
      "runtime"
    ];
  };

  # The same as a worker of RunPod Serverless.
  smoke-worker = smoke // {
    environments = [
      "worker"
      "runtime"
    ];
  };

  # The same with both voice APIs, on the small engine.
  smoke-voice = smoke // {
    userland = [
      [ "core" ]
      [ "speech" ]
    ];
    environments = [
      "voice"
      "runtime"
    ];
    services = withoutGpu;
    servicesWithoutGpu = withoutGpu;
  };

  # 8 to 24 GB of GPU memory.
  consumer = full {
    defaults = {
      GPU_TIER = "auto";
    };
    recommended = {
      ENABLE_ILLUSTRIOUS = "true";
      ENABLE_VIBEVOICE = "true";
      VIBEVOICE_MODEL = "1.5B";
      WAN_480P = "true";
    };
  };

  # 24 to 48 GB.
  prosumer = full {
    defaults = {
      GPU_TIER = "auto";
      # The largest that 24 GB hold.
      QWEN_EDIT_MODEL = "Q8_0";
      VIBEVOICE_MODEL = "Large";
    };
    recommended = {
      ENABLE_STEADYDANCER = "true";
      ENABLE_VACE = "true";
      ENABLE_VIBEVOICE = "true";
      ENABLE_WAN22_DISTILL = "true";
      WAN22_DISTILL_VARIANT = "turbodiffusion";
      WAN_720P = "true";
    };
  };

  # 48 GB and more. InfCam is left out of what is recommended: its code has no licence.
  datacenter = full {
    defaults = {
      GPU_MEMORY_MODE = "full";
      GPU_TIER = "auto";
      QWEN_EDIT_MODEL = "full";
      VIBEVOICE_MODEL = "Large";
    };
    recommended = {
      ENABLE_FLASHPORTRAIT = "true";
      ENABLE_QWEN_EDIT = "true";
      ENABLE_VIBEVOICE = "true";
      WAN_720P = "true";
    };
  };
}
