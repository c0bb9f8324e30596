//! What a board's file says of the work that the board does: inference and rendering.

use serde::Deserialize;

/// What runs models.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceleratorsConfig {
    /// ONNX Runtime's execution providers that the board has, first choice first.
    pub execution_providers: Vec<ExecutionProvider>,
    /// Clusters whose cores run models, by name; none for all.
    #[serde(default)]
    pub inference_clusters: Vec<String>,
    /// What the simulated accelerator does to models; must be there where `execution_providers` names `sim`.
    pub sim: Option<SimProvider>,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionProvider {
    /// ONNX Runtime's own kernels.
    Cpu,
    /// XNNPACK's kernels.
    Xnnpack,
    /// Arm Compute Library.
    Acl,
    /// Qualcomm's runtime on the Adreno GPU.
    QnnGpu,
    /// Qualcomm's runtime on the Hexagon processor.
    QnnHtp,
    /// A simulated accelerator, for simulated boards.
    Sim,
}

/// What the simulated accelerator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SimProvider {
    /// Remembers its last answer, and gives it again without computing.
    Fast,
    /// Takes 20 ms more for each run.
    Slow,
    /// Gives wrong answers.
    Differ,
    /// Crashes the process.
    Crash,
}

impl SimProvider {
    /// All that it can be told to do.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Slow, Self::Differ, Self::Crash];

    /// Name in board files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Differ => "differ",
            Self::Crash => "crash",
        }
    }
}

impl ExecutionProvider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Xnnpack,
        Self::Acl,
        Self::QnnGpu,
        Self::QnnHtp,
        Self::Sim,
    ];

    /// Name in board files and telemetry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Xnnpack => "xnnpack",
            Self::Acl => "acl",
            Self::QnnGpu => "qnn-gpu",
            Self::QnnHtp => "qnn-htp",
            Self::Sim => "sim",
        }
    }
}

impl std::fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Limits of rendering.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RenderingConfig {
    /// Part of the Vulkan device's name.
    pub vulkan_device: String,
    /// Sizes of a subgroup that shaders must work with.
    pub subgroup_sizes: Vec<u16>,
    /// Most invocations of a workgroup.
    pub max_workgroup_invocations: u32,
    /// Memory that all jobs together may hold.
    pub max_memory_bytes: u64,
    /// Whether the device has ray queries.
    pub ray_query: bool,
}
