// The table of keys, and the reference written from it.
#include "train/config_keys.h"

#include <algorithm>

#include "base/error.h"

namespace bp::train {

namespace {

using K = KeyKind;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Range kAny{}, kNotNegative{0}, kPositive{0, kInfinity, true}, kFromOne{1}, kUnit{0, 1},
    kBelowOne{0, 1, false, true}, kInside{0, 1, true, true}, kFactor{0, 1, true};

constexpr KeyRule kKeys[] = {
    {"", "", "name", K::text, kAbsent, kAny, "", "of the run's folder, runs/NAME; the file's name unless given"},
    {"", "", "seed", K::integer, "0", kNotNegative, "", "of first values, shuffling, dropout and splits"},
    {"", "", "dtype", K::text, "\"f32\"", kAny, "f32 f64", "of parameters and computation"},
    {"", "", "augment", K::steps, kAbsent, kAny, "", "how training images are altered; below"},

    {"data", "", "train", K::files, kRequired, kAny, "",
     "the training files: a path, or { inputs = ..., targets = ... }"},
    {"data", "", "validation", K::files, kAbsent, kAny, "", "watched after each epoch"},
    {"data", "", "test", K::files, kAbsent, kAny, "", "evaluated once, after training"},
    {"data", "", "limit", K::integer, "0", kNotNegative, "",
     "use only the first rows (of text: symbols; of images: any) of the training files; 0: all"},
    {"data", "idx csv npy images", "validation_fraction", K::number, "0.0", kBelowOne, "",
     "share of the training rows, drawn at random, to validate on instead"},
    {"data", "idx csv npy images", "classes", K::texts, kAbsent, kAny, "", "names of the class ids 0, 1, ..."},
    {"data", "idx csv npy images", "scale", K::number, kAbsent, kPositive, "",
     "x becomes (x * scale - mean) / std; 1/255 for bytes unless given, otherwise 1"},
    {"data", "idx csv npy images", "mean", K::numbers, kAbsent, kAny, "", "one, or one a channel; 0 unless given"},
    {"data", "idx csv npy images", "std", K::numbers, kAbsent, kPositive, "", "one, or one a channel; 1 unless given"},
    {"data", "idx csv npy images", "normalize", K::boolean, "false", kAny, "",
     "take mean and std, one a channel, from the training rows; the run's config.toml records them"},
    {"data", "", "workers", K::integer, "1", {1, 256}, "", "threads that read and alter batches ahead of training"},
    {"data", "", "timeout", K::number, "600.0", kNotNegative, "",
     "seconds to wait for a batch before the run stops, naming what it waits for; 0: for ever"},
    {"data", "idx csv npy", "stream", K::boolean, kAbsent, kAny, "",
     "read rows from disk when a batch wants them, the same ones as from memory (data.md); unless given, where a file "
     "is "
     "larger than a quarter of the memory"},
    {"data", "idx csv npy", "shuffle_buffer", K::bytes, "\"64 MiB\"", kAny, "",
     "rows that are mixed where files are compressed, or are several (\"train_*.csv\"), and are streamed: they can "
     "only be "
     "read forward"},
    {"data", "csv", "target", K::text, kRequired, kAny, "", "name of the column to predict"},
    {"data", "csv", "columns", K::texts, kAbsent, kAny, "", "input columns in order; all but the target unless given"},
    {"data", "csv", "categorical", K::texts, "[]", kAny, "",
     "columns whose text becomes an id; the target is one by itself under cross_entropy"},
    {"data", "csv", "one_hot", K::boolean, "false", kAny, "",
     "a categorical input becomes a column of 0 and 1 for each category instead of its id"},
    {"data", "csv", "categories", K::table, kAbsent, kAny, "",
     "the texts of the ids, by column; taken from the training file unless given"},
    {"data", "csv", "delimiter", K::text, "\",\"", kAny, "", "one character"},
    {"data", "csv", "missing", K::text, "\"error\"", kAny, "error drop_row", "what an empty field does to its row"},

    {"data", "images", "max_pixels", K::integer, "67108864", kFromOne, "", "of one image; larger ones are refused"},
    {"data", "text", "unit", K::text, "\"char\"", kAny, "char byte",
     "of the ids: code points of UTF-8, or bytes, which are 256 whatever the file"},
    {"data", "text", "stream", K::boolean, kAbsent, kAny, "",
     "of bytes: read blocks from disk when a batch wants them; unless given, where the file is larger than a quarter "
     "of "
     "the memory. Characters are always in memory"},
    {"data", "text", "vocabulary", K::text, kAbsent, kAny, "",
     "all characters, in the order of their ids; those of the training file unless given. The run's config.toml "
     "records it"},
    {"data", "tokens", "ids", K::text, "\"u16\"", kAny, "u8 u16 u32 i32",
     "how ids are stored, little-endian, in files that are not .npy"},
    {"data", "tokens", "header", K::integer, "0", kNotNegative, "", "bytes to skip at the beginning of each such file"},
    {"data", "text tokens", "context", K::integer, kAbsent, kFromOne, "",
     "symbols a block, of which each predicts the next; as model.input"},
    {"data", "text tokens", "validation_fraction", K::number, "0.1", kBelowOne, "",
     "share of the training file, its last part, to validate on instead"},
    {"data", "text tokens", "blocks", K::integer, "0", kNotNegative, "",
     "blocks an epoch of training, each from a random place; 0: as many as fit side by side"},
    {"data", "text tokens", "stride", K::integer, kAbsent, kFromOne, "",
     "of evaluation: symbols from one block to the next; the context unless given"},

    {"augment", "flip flip_vertical erase", "probability", K::number, "0.5", kUnit, "", "of being done"},
    {"augment", "shift crop rotate affine resized_crop color noise cutout mixup cutmix", "probability", K::number,
     "1.0", kUnit, "", "of being done"},
    {"augment", "shift", "pixels", K::integer, kRequired, kNotNegative, "", "at most, in each direction"},
    {"augment", "crop", "padding", K::integer, kRequired, kNotNegative, "", "pixels around the image"},
    {"augment", "rotate", "degrees", K::number, kRequired, kNotNegative, "", "at most, either way"},
    {"augment", "affine", "degrees", K::number, "0.0", kNotNegative, "", "of rotation, at most, either way"},
    {"augment", "affine", "shift", K::number, "0.0", kNotNegative, "", "pixels at most, in each direction"},
    {"augment", "affine", "scale", K::numbers, "[1.0, 1.0]", kPositive, "", "least and most"},
    {"augment", "affine", "shear", K::number, "0.0", kNotNegative, "", "degrees at most, either way"},
    {"augment", "shift crop rotate affine", "border", K::text, "\"constant\"", kAny, "constant edge reflect",
     "what lies outside: one value, the nearest pixel, the mirrored image"},
    {"augment", "shift crop rotate affine cutout erase", "value", K::number, "0.0", kAny, "",
     "of what is outside or missing, before mean and std are applied"},
    {"augment", "resized_crop", "area", K::numbers, "[0.08, 1.0]", kFactor, "", "least and most, share of the image"},
    {"augment", "resized_crop", "ratio", K::numbers, "[0.75, 1.3333333333333333]", kPositive, "",
     "least and most, width / height"},
    {"augment", "color", "brightness", K::number, "0.0", kNotNegative, "", "factor 1 - b to 1 + b"},
    {"augment", "color", "contrast", K::number, "0.0", kNotNegative, "", "factor of the distance from the mean grey"},
    {"augment", "color", "saturation", K::number, "0.0", kNotNegative, "", "factor of the distance from grey"},
    {"augment", "color", "hue", K::number, "0.0", {0, 0.5}, "", "share of the colour circle, at most, either way"},
    {"augment", "noise", "stddev", K::number, kRequired, kNotNegative, "", ""},
    {"augment", "cutout", "size", K::integer, kRequired, kFromOne, "", "side of a square, pixels"},
    {"augment", "cutout", "holes", K::integer, "1", kFromOne, "", ""},
    {"augment", "erase", "area", K::numbers, "[0.02, 0.33]", kFactor, "", "least and most, share of the image"},
    {"augment", "erase", "ratio", K::numbers, "[0.3, 3.3333333333333335]", kPositive, "",
     "least and most, height / width"},
    {"augment", "mixup", "alpha", K::number, "0.2", kPositive, "", "of the Beta distribution of the shares"},
    {"augment", "cutmix", "alpha", K::number, "1.0", kPositive, "", "of the Beta distribution of the shares"},

    {"model", "", "input", K::integers, kRequired, kFromOne, "",
     "shape of one sample: [features], [H, W, C]; rows of as many numbers are reshaped to it"},
    {"model", "", "layers", K::layers, kRequired, kAny, "", "one after another; sizes of inputs are inferred"},

    {"layer", "", "name", K::text, kAbsent, kAny, "", "in the names of parameters; the position unless given"},
    {"layer", "linear", "units", K::integer, kRequired, kFromOne, "", "size of the output"},
    {"layer", "conv1d conv2d conv3d", "filters", K::integer, kRequired, kFromOne, "", "output channels"},
    {"layer", "conv1d conv2d conv3d", "kernel", K::integers, kRequired, kFromOne, "", "one, or one a dimension"},
    {"layer", "conv1d conv2d conv3d", "stride", K::integers, "1", kFromOne, "", "one, or one a dimension"},
    {"layer", "conv1d conv2d conv3d", "padding", K::padding, "0", kNotNegative, "",
     "on both sides; \"same\" keeps the size (divided by the stride)"},
    {"layer", "conv1d conv2d conv3d", "dilation", K::integers, "1", kFromOne, "", "one, or one a dimension"},
    {"layer", "conv1d conv2d conv3d", "groups", K::integer, "1", kFromOne, "", "of channels"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "filters", K::integer, kRequired, kFromOne, "",
     "output channels"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "kernel", K::integers, kRequired, kFromOne, "",
     "one, or one a dimension"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "stride", K::integers, "1", kFromOne, "",
     "one, or one a dimension"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "padding", K::integers, "0", kNotNegative, "",
     "cut from both sides of the output"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "output_padding", K::integers, "0", kNotNegative,
     "", "more at the end of the output; below the stride"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "dilation", K::integers, "1", kFromOne, "",
     "one, or one a dimension"},
    {"layer", "conv_transpose1d conv_transpose2d conv_transpose3d", "groups", K::integer, "1", kFromOne, "",
     "of channels"},
    {"layer", "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", "bias", K::boolean,
     "true", kAny, "", "add one"},
    {"layer", "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", "normalize", K::text,
     "\"none\"", kAny, "none weight spectral",
     "of the weight: by a learnt gain (Salimans and Kingma 2016), by its largest singular value (Miyato et al. 2018)"},
    {"layer", "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", "init", K::text,
     "\"he_normal\"", kAny, "",
     "of the weight: he_normal, he_uniform, glorot_normal, glorot_uniform, lecun_normal, lecun_uniform, orthogonal, "
     "pytorch, zeros, ..."},
    {"layer", "max_pool avg_pool", "size", K::integers, kRequired, kFromOne, "", "of the window"},
    {"layer", "max_pool avg_pool", "stride", K::integers, kAbsent, kFromOne, "", "the window's size unless given"},
    {"layer", "max_pool avg_pool", "padding", K::integers, "0", kNotNegative, "", "on both sides"},
    {"layer", "max_pool", "dilation", K::integers, "1", kFromOne, "", "one, or one a dimension"},
    {"layer", "avg_pool", "count_include_pad", K::boolean, "true", kAny, "", "whether padding counts in the divisor"},
    {"layer", "adaptive_max_pool adaptive_avg_pool", "sizes", K::integers, kRequired, kFromOne, "",
     "of the output, one, or one a dimension"},
    {"layer", "flatten", "channels_first", K::boolean, "false", kAny, "", "order C, H, W, as PyTorch's"},
    {"layer", "dropout spatial_dropout alpha_dropout", "rate", K::number, "0.5", kBelowOne, "",
     "share of values (of channels) that are dropped"},
    {"layer", "drop_path", "rate", K::number, "0.1", kBelowOne, "", "share of samples that are dropped"},
    {"layer", "batch_norm instance_norm", "momentum", K::number, "0.1", kUnit, "", "of the running statistics"},
    {"layer", "batch_norm", "cumulative", K::boolean, "false", kAny, "",
     "running statistics are the mean over all batches, whatever the momentum"},
    {"layer", "batch_norm layer_norm group_norm instance_norm", "eps", K::number, "1e-5", kPositive, "",
     "added to the variance"},
    {"layer", "rms_norm", "eps", K::number, "1e-6", kPositive, "", "added to the mean square"},
    {"layer", "batch_norm layer_norm group_norm", "affine", K::boolean, "true", kAny, "", "learn a gain and a bias"},
    {"layer", "instance_norm", "affine", K::boolean, "false", kAny, "", "learn a gain and a bias"},
    {"layer", "instance_norm", "track", K::boolean, "false", kAny, "", "keep running statistics and evaluate by them"},
    {"layer", "rms_norm", "affine", K::boolean, "true", kAny, "", "learn a gain"},
    {"layer", "group_norm", "groups", K::integer, kRequired, kFromOne, "", "of channels"},
    {"layer", "embedding", "ids", K::integer, kRequired, kFromOne, "", "ids are 0, 1, ... below this"},
    {"layer", "embedding", "units", K::integer, kRequired, kFromOne, "", "size of a vector"},
    {"layer", "embedding", "padding", K::integer, kAbsent, kNotNegative, "",
     "the id whose vector starts at zero and stays"},
    {"layer", "rnn gru lstm", "units", K::integer, kRequired, kFromOne, "", "size of the state"},
    {"layer", "rnn gru lstm", "layers", K::integer, "1", kFromOne, "", "one on the other"},
    {"layer", "rnn gru lstm", "bidirectional", K::boolean, "false", kAny, "",
     "a second set of weights reads from the end"},
    {"layer", "rnn gru lstm", "dropout", K::number, "0.0", kBelowOne, "", "on the outputs of every layer but the last"},
    {"layer", "rnn gru lstm", "bias", K::boolean, "true", kAny, "", "add one"},
    {"layer", "rnn gru lstm", "output", K::text, "\"sequence\"", kAny, "sequence last",
     "the state after every step, [T, units], or after the last one, [units]"},
    {"layer",
     "rnn gru lstm",
     "segment",
     K::integer,
     "0",
     {-1, 1e9},
     "",
     "gradient checkpointing: steps that are computed again together; 0: none, -1: the square root of their number"},
    {"layer", "gelu", "approximate", K::boolean, "false", kAny, "", "by tanh"},
    {"layer", "leaky_relu", "slope", K::number, "0.01", kAny, "", "for x < 0"},
    {"layer", "elu", "alpha", K::number, "1.0", kAny, "", "alpha (exp(x) - 1) for x < 0"},
    {"layer", "celu", "alpha", K::number, "1.0", kPositive, "", "alpha (exp(x / alpha) - 1) for x < 0"},
    {"layer", "prelu", "slope", K::number, "0.25", kAny, "", "for x < 0, at first"},
    {"layer", "prelu", "shared", K::boolean, "true", kAny, "", "one slope for all channels"},
    {"layer", "hard_tanh", "low", K::number, "-1.0", kAny, "", "least value"},
    {"layer", "hard_tanh", "high", K::number, "1.0", kAny, "", "largest value"},
    {"layer", "hard_shrink soft_shrink", "lambda", K::number, "0.5", kNotNegative, "",
     "zero for x of at most this size"},
    {"layer", "gpt", "vocabulary", K::integer, kRequired, kFromOne, "", "number of ids; of text: \"vocabulary\""},
    {"layer", "gpt", "layers", K::integer, "4", kFromOne, "", "blocks"},
    {"layer", "gpt", "heads", K::integer, "4", kFromOne, "", "of attention, a divisor of the width"},
    {"layer", "gpt", "width", K::integer, "128", kFromOne, "", "of embeddings and blocks"},
    {"layer", "gpt", "hidden", K::integer, "0", kNotNegative, "", "of the feed-forward parts; 0: 4 * width"},
    {"layer", "gpt", "key_heads", K::integer, "0", kNotNegative, "", "heads of keys and values; 0: heads"},
    {"layer", "gpt", "dropout", K::number, "0.0", kBelowOne, "", "of embeddings, attention, hidden layers and sums"},
    {"layer", "gpt", "bias", K::boolean, "true", kAny, "", "of products; norms always have one"},
    {"layer", "gpt", "tie", K::boolean, "true", kAny, "", "the head's weight is the table of tokens"},
    {"layer", "gpt", "positions", K::text, "\"learned\"", kAny, "learned rotary", ""},
    {"layer", "gpt", "activation", K::text, "\"gelu\"", kAny, "gelu gelu_tanh relu silu", "of the feed-forward parts"},
    {"layer", "onnx", "file", K::text, kRequired, kAny, "", "a model to train on: FILE.onnx, beside the configuration"},
    {"layer", "onnx", "channels_first", K::boolean, "true", kAny, "",
     "its images are [N, C, H, W], as most files have them"},
    {"layer", "residual", "layers", K::layers, kRequired, kAny, "", "y = layers(x) + shortcut(x)"},
    {"layer", "residual", "shortcut", K::layers, kAbsent, kAny, "", "the identity unless given"},

    {"loss", "huber", "delta", K::number, "1.0", kPositive, "", "where the square becomes linear"},
    {"loss", "cross_entropy", "label_smoothing", K::number, "0.0", kBelowOne, "", "share given to all classes"},
    {"loss", "cross_entropy", "class_weights", K::numbers, kAbsent, kNotNegative, "", "one a class"},

    {"optimizer", "sgd rmsprop adagrad", "lr", K::number, "0.01", kNotNegative, "", "learning rate"},
    {"optimizer", "adam adamw", "lr", K::number, "1e-3", kNotNegative, "", "learning rate"},
    {"optimizer", "sgd", "momentum", K::number, "0.0", kBelowOne, "", ""},
    {"optimizer", "sgd", "dampening", K::number, "0.0", kUnit, "", "of the momentum"},
    {"optimizer", "sgd", "nesterov", K::boolean, "false", kAny, "", ""},
    {"optimizer", "rmsprop", "momentum", K::number, "0.0", kBelowOne, "", ""},
    {"optimizer", "rmsprop", "alpha", K::number, "0.99", kBelowOne, "", "decay of the mean square"},
    {"optimizer", "rmsprop", "centered", K::boolean, "false", kAny, "", "divide by the standard deviation"},
    {"optimizer", "adagrad", "lr_decay", K::number, "0.0", kNotNegative, "", ""},
    {"optimizer", "adagrad", "initial_accumulator", K::number, "0.0", kNotNegative, "", ""},
    {"optimizer", "adam adamw", "beta1", K::number, "0.9", kBelowOne, "", "decay of the mean"},
    {"optimizer", "adam adamw", "beta2", K::number, "0.999", kBelowOne, "", "decay of the mean square"},
    {"optimizer", "adam adamw", "amsgrad", K::boolean, "false", kAny, "", ""},
    {"optimizer", "rmsprop adam adamw", "eps", K::number, "1e-8", kNotNegative, "", ""},
    {"optimizer", "adagrad", "eps", K::number, "1e-10", kNotNegative, "", ""},
    {"optimizer", "sgd rmsprop adagrad adam", "weight_decay", K::number, "0.0", kNotNegative, "", "L2"},
    {"optimizer", "adamw", "weight_decay", K::number, "0.01", kNotNegative, "", "decoupled"},
    {"optimizer", "", "decay_vectors", K::boolean, "true", kAny, "", "decay biases and norms too"},
    {"optimizer", "", "clip_norm", K::number, "0.0", kNotNegative, "",
     "largest norm of all gradients together; 0: off"},
    {"optimizer", "", "clip_value", K::number, "0.0", kNotNegative, "", "largest gradient of an element; 0: off"},

    {"schedule", "", "by_epoch", K::boolean, "false", kAny, "", "count epochs instead of steps (batches)"},
    {"schedule", "constant step multistep exponential cosine polynomial one_cycle", "warmup_steps", K::integer, "0",
     kNotNegative, "", "rise to the first rate within so many counts, before the rest"},
    {"schedule", "constant step multistep exponential cosine polynomial one_cycle", "warmup_start", K::number, "0.1",
     kFactor, "", "share of the rate to rise from"},
    {"schedule", "step", "every", K::integer, kRequired, kFromOne, "", "counts"},
    {"schedule", "multistep", "milestones", K::integers, kRequired, kNotNegative, "", "counts, ascending"},
    {"schedule", "step multistep", "gamma", K::number, "0.1", kFactor, "", "factor"},
    {"schedule", "exponential", "gamma", K::number, kRequired, kFactor, "", "factor of each count"},
    {"schedule", "cosine polynomial one_cycle", "steps", K::integer, kAbsent, kFromOne, "",
     "length in counts; to the end of the run unless given"},
    {"schedule", "cosine", "min", K::number, "0.0", kNotNegative, "", "last rate"},
    {"schedule", "polynomial", "power", K::number, "1.0", kPositive, "", ""},
    {"schedule", "one_cycle", "pct_start", K::number, "0.3", kInside, "", "share of the counts that rise"},
    {"schedule", "one_cycle", "anneal", K::text, "\"cosine\"", kAny, "cosine linear", ""},
    {"schedule", "one_cycle", "div_factor", K::number, "25.0", kFromOne, "", "lr / div_factor is the first rate"},
    {"schedule", "one_cycle", "final_div_factor", K::number, "1e4", kFromOne, "", "the first rate / this is the last"},
    {"schedule", "reduce_on_plateau", "factor", K::number, "0.1", kInside, "", "of each reduction"},
    {"schedule", "reduce_on_plateau", "patience", K::integer, "10", kNotNegative, "", "epochs without improvement"},
    {"schedule", "reduce_on_plateau", "threshold", K::number, "1e-4", kNotNegative, "", "relative improvement"},
    {"schedule", "reduce_on_plateau", "cooldown", K::integer, "0", kNotNegative, "", "epochs after a reduction"},
    {"schedule", "reduce_on_plateau", "min_rate", K::number, "0.0", kNotNegative, "", ""},

    {"train", "", "epochs", K::integer, "10", kFromOne, "", "passes over the training rows"},
    {"train", "", "batch", K::integer, "32", kFromOne, "", "samples a step; a last, smaller batch is left out"},
    {"train", "", "eval_batch", K::integer, kAbsent, kFromOne, "", "of evaluation; as batch unless given"},
    {"train", "", "shuffle", K::boolean, "true", kAny, "", "another order each epoch"},
    {"train", "", "patience", K::integer, "0", kNotNegative, "",
     "stop after so many epochs in which what is watched has not become better; 0: never"},
    {"train", "", "min_delta", K::number, "0.0", kNotNegative, "", "what counts as better"},
    {"train", "", "tolerance", K::number, "0.0", kNotNegative, "",
     "stop when the training loss changes by a smaller share from one epoch to the next; 0: never"},
    {"train", "", "check_gradients", K::boolean, "false", kAny, "",
     "stop at the first gradient that is NaN or infinite, and name the operation"},
    {"train", "", "keep", K::text, "\"last\"", kAny, "last best",
     "which epoch model.safetensors holds: the last, or the best by what is watched"},
    {"train", "", "watch", K::text, "\"loss\"", kAny,
     "loss accuracy top_k precision recall f1 auc perplexity mae rmse r2",
     "the metric of validation (of training without one: loss, accuracy, mae, rmse, r2) that decides what is best, for "
     "keep, patience and reduce_on_plateau"},
    {"train", "", "top_k", K::integer, "0", kNotNegative, "",
     "also measure the share of targets among the k likeliest classes; 0: no"},
    {"train", "", "target", K::number, kAbsent, kAny, "", "stop after an epoch whose watched metric is as good"},
    {"train", "", "max_steps", K::integer, "0", kNotNegative, "", "stop after so many updates; 0: never"},
    {"train", "", "max_seconds", K::number, "0.0", kNotNegative, "",
     "stop after so much training and validation, all resumes together; 0: never"},
    {"train", "", "accumulate", K::integer, "1", kFromOne, "",
     "batches whose gradients are averaged for one update: a batch of batch * accumulate in the memory of batch"},
    {"train", "", "ema", K::number, "0.0", kBelowOne, "",
     "decay of an exponential average of the weights, which validation, model.safetensors and tests take; 0: none"},
    {"train", "", "swa_from", K::integer, "0", kNotNegative, "",
     "the model is the mean of the weights after each epoch from this one on (stochastic weight averaging); 0: no"},
    {"train", "", "max_loss", K::number, kAbsent, kPositive, "",
     "a batch with a larger loss counts as diverged, as NaN does"},
    {"train",
     "",
     "rollbacks",
     K::integer,
     "0",
     {0, 1000},
     "",
     "how often a run that diverged goes back to the last epoch (or checkpoint_steps) and on with a lower rate"},
    {"train", "", "rollback_factor", K::number, "0.5", kFactor, "", "of the rate after a rollback"},
    {"train", "", "checkpoint_steps", K::integer, "0", kNotNegative, "",
     "updates between checkpoints, beside those after each epoch; 0: none"},
    {"train", "", "checkpoint_seconds", K::number, "300.0", kNotNegative, "", "the same, by the clock; 0: none"},
    {"train", "", "keep_checkpoints", K::integer, "2", {1, 1000000}, "", "so many newest ones stay"},
    {"train", "", "keep_best_checkpoints", K::integer, "0", {0, 1000000}, "", "and those of so many best epochs"},
    {"train", "", "report", K::boolean, "true", kAny, "", "write report.html at the end: a page about the run"},
    {"train", "", "tensorboard", K::boolean, "true", kAny, "",
     "write event files: curves, histograms of the parameters, some training images (tensorboard --logdir runs)"},
    {"train", "", "threads", K::integer, "0", {0, 1024}, "", "0: OMP_NUM_THREADS or the number of cores"},
    {"train", "", "precision", K::text, "\"f32\"", kAny, "f32 bf16",
     "bf16: products read bf16 and add up in f32, activations are kept as bf16; weights stay f32"},
    {"train", "", "memory_budget", K::bytes, "0", kAny, "",
     "what a training step may take: within it, values of the forward pass are computed twice instead of kept, with "
     "the same results; 0: no limit"},

    {"tune", "", "method", K::text, "\"random\"", kAny, "grid random halton asha",
     "grid: all combinations; random; halton: spread more evenly; asha: random, and trials that fall behind stop "
     "early"},
    {"tune", "", "space", K::table, kRequired, kAny, "", "the keys to search over and their values; above"},
    {"tune", "", "trials", K::integer, kAbsent, {1, 100000}, "", "20 unless given; of a grid all"},
    {"tune", "", "seed", K::integer, "0", kNotNegative, "", "of what is tried; each trial trains with the file's seed"},
    {"tune", "", "min_epochs", K::integer, "1", kFromOne, "", "asha: the first rung"},
    {"tune",
     "",
     "eta",
     K::integer,
     "3",
     {2, 1000},
     "",
     "asha: the best 1/eta go on past a rung, to eta times its epochs"},
};

constexpr TypeRow kTypes[] = {
    {"data", "idx", "MNIST's files, plain or gzip; train = { inputs = images, targets = labels }"},
    {"data", "csv", "a table with a header, plain or gzip; train = path"},
    {"data", "npy", "NumPy's arrays; train = { inputs = path, targets = path }"},
    {"data", "images", "PNG and JPEG files, train = FOLDER with a subfolder a class; stretched to model.input"},
    {"data", "tokens",
     "ids on disk, made of text by a tokenizer; train = a file, a FOLDER of .bin and .npy shards, or a pattern "
     "(\"train_*.bin\")"},
    {"data", "text",
     "characters or bytes, plain or gzip; train = path; rows are blocks: ids [context], targets the ids "
     "one further on"},
    {"augment", "flip", "left and right"},
    {"augment", "flip_vertical", "up and down"},
    {"augment", "shift", "by whole pixels"},
    {"augment", "crop", "a part of the image's size out of the padded image"},
    {"augment", "rotate", "about the centre, bilinear"},
    {"augment", "affine", "shear, scale, rotation, shift, bilinear"},
    {"augment", "resized_crop", "a part stretched to the whole, bilinear"},
    {"augment", "color", "of values in [0, 1]"},
    {"augment", "noise", "normal, added"},
    {"augment", "cutout", "squares; DeVries and Taylor 2017"},
    {"augment", "erase", "a rectangle; Zhong et al. 2017"},
    {"augment", "mixup", "with another image, targets too; Zhang et al. 2017"},
    {"augment", "cutmix", "with a part of another image, targets too; Yun et al. 2019"},
    {"layer", "linear", "x W + b"},
    {"layer", "conv1d", "[L, C] to [L', filters]"},
    {"layer", "conv2d", "[H, W, C] to [H', W', filters]"},
    {"layer", "conv3d", "[D, H, W, C] to [D', H', W', filters]"},
    {"layer", "conv_transpose1d", "[L, C] to [L', filters], the transpose of a convolution"},
    {"layer", "conv_transpose2d", "[H, W, C] to [H', W', filters]"},
    {"layer", "conv_transpose3d", "[D, H, W, C] to [D', H', W', filters]"},
    {"layer", "max_pool", "largest of each window, by channel"},
    {"layer", "avg_pool", "mean of each window, by channel"},
    {"layer", "global_max_pool", "[.., C] to [C], the largest by channel"},
    {"layer", "global_avg_pool", "[.., C] to [C], the mean by channel"},
    {"layer", "adaptive_max_pool", "to given sizes, by windows as PyTorch's"},
    {"layer", "adaptive_avg_pool", "to given sizes, by windows as PyTorch's"},
    {"layer", "flatten", "to one dimension"},
    {"layer", "embedding", "integer ids [..] to vectors [.., units]"},
    {"layer", "dropout", "in training only"},
    {"layer", "spatial_dropout", "of whole channels"},
    {"layer", "alpha_dropout", "for selu"},
    {"layer", "drop_path", "of whole samples, at the end of a residual's layers; Huang et al. 2016"},
    {"layer", "batch_norm", "by channel, over the batch"},
    {"layer", "layer_norm", "over the last dimension"},
    {"layer", "rnn", "h' = tanh(x W + h U + b); [T, C] to [T, units]"},
    {"layer", "gru", "Cho et al. 2014; [T, C] to [T, units]"},
    {"layer", "lstm", "Hochreiter and Schmidhuber 1997; [T, C] to [T, units]"},
    {"layer", "group_norm", "over groups of channels and all positions of a sample"},
    {"layer", "instance_norm", "by sample and channel, over all positions"},
    {"layer", "rms_norm", "over the last dimension, without a mean"},
    {"layer", "identity", "x"},
    {"layer", "relu", "max(x, 0)"},
    {"layer", "tanh", ""},
    {"layer", "sigmoid", ""},
    {"layer", "silu", "x sigmoid(x)"},
    {"layer", "softplus", "log(1 + exp(x))"},
    {"layer", "gelu", "x Phi(x)"},
    {"layer", "leaky_relu", ""},
    {"layer", "prelu", "leaky_relu with a learnt slope"},
    {"layer", "elu", ""},
    {"layer", "celu", ""},
    {"layer", "selu", "Klambauer et al. 2017; with init = \"lecun_normal\""},
    {"layer", "mish", "x tanh(softplus(x))"},
    {"layer", "softsign", "x / (1 + abs(x))"},
    {"layer", "log_sigmoid", ""},
    {"layer", "relu6", "min(max(x, 0), 6)"},
    {"layer", "hard_tanh", "min(max(x, low), high)"},
    {"layer", "hard_sigmoid", "relu6(x + 3) / 6"},
    {"layer", "hard_swish", "x relu6(x + 3) / 6"},
    {"layer", "hard_shrink", "x beyond lambda, else 0"},
    {"layer", "soft_shrink", "x moved towards 0 by lambda"},
    {"layer", "tanh_shrink", "x - tanh(x)"},
    {"layer", "glu", "[.., 2 C] to [.., C]: the first half times sigmoid of the second"},
    {"layer", "geglu", "with gelu"},
    {"layer", "swiglu", "with silu"},
    {"layer", "reglu", "with relu"},
    {"layer", "log_softmax", "over the last dimension"},
    {"layer", "softmax", "over the last dimension; cross_entropy wants logits instead"},
    {"layer", "residual", "He et al. 2016"},
    {"layer", "onnx",
     "a model from elsewhere, or of bp export, trained on; its weights are those of the file until then"},
    {"layer", "gpt", "ids [context] to scores [context, vocabulary]; Radford et al. 2019"},
    {"loss", "cross_entropy", "softmax of the output against class ids or probabilities"},
    {"loss", "binary_cross_entropy", "sigmoid of the output against 0 or 1"},
    {"loss", "kl_divergence", "of target probabilities from softmax of the output"},
    {"loss", "squared_error", "mean (y - t)^2"},
    {"loss", "half_squared_error", "1/2 |y - t|^2, mean over samples"},
    {"loss", "l1", "mean |y - t|"},
    {"loss", "huber", "square near 0, linear beyond delta"},
    {"optimizer", "sgd", ""},
    {"optimizer", "rmsprop", ""},
    {"optimizer", "adagrad", ""},
    {"optimizer", "adam", ""},
    {"optimizer", "adamw", ""},
    {"schedule", "constant", ""},
    {"schedule", "step", "lr * gamma^floor(t / every)"},
    {"schedule", "multistep", "lr * gamma^(milestones passed)"},
    {"schedule", "exponential", "lr * gamma^t"},
    {"schedule", "cosine", "from lr down to min"},
    {"schedule", "polynomial", "lr * (1 - t / steps)^power"},
    {"schedule", "one_cycle", "up to lr, then down; Smith and Topin 2017"},
    {"schedule", "reduce_on_plateau", "when the validation (training) loss no longer falls"},
};

bool lists(std::string_view words, std::string_view word) {
  if (words.empty()) return true;
  for (std::size_t at = 0; at <= words.size();) {
    const auto end = std::min(words.find(' ', at), words.size());
    if (words.substr(at, end - at) == word) return true;
    at = end + 1;
  }
  return false;
}

const char* kind_text(KeyKind kind) {
  switch (kind) {
    case K::boolean: return "true or false";
    case K::integer: return "an integer";
    case K::number: return "a number";
    case K::text: return "text";
    case K::bytes: return "a number of bytes, as 1000000, \"512 MiB\" or \"2 GB\"";
    case K::integers: return "an integer or a list of integers";
    case K::numbers: return "a number or a list of numbers";
    case K::texts: return "a list of texts";
    case K::padding: return "\"same\", an integer or a list of integers";
    case K::files: return "a path or { inputs = path, targets = path }";
    case K::table: return "a table";
    case K::layers: return "a list of layers, each { type = ... }";
    case K::steps: return "a list of steps, each { type = ... }";
  }
  return "";
}

void write_key(std::string& out, const KeyRule& k) {
  std::string fallback = "required";
  if (k.fallback == kAbsent) fallback = "–";
  if (k.fallback != kAbsent && k.fallback != kRequired) fallback = fmt::format("`{}`", k.fallback);
  out += fmt::format("| `{}` | {} | {} | {} |\n", k.key, expected_of(k), fallback, k.help);
}

void write_rows(std::string& out, std::string_view group, std::string_view types) {
  out += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
  for (const KeyRule& k : keys())
    if (k.group == group && k.types == types) write_key(out, k);
}

void write_group(std::string& out, std::string_view group, const char* title, const char* text) {
  out += fmt::format("\n## {}\n{}\n", title, text);
  const std::vector<std::string> names = types_of(group);
  if (!names.empty()) {
    out += fmt::format("\n| `{}` | |\n|---|---|\n", group == "data" ? "format" : "type");
    for (const TypeRow& t : types())
      if (t.group == group) out += fmt::format("| `{}` | {} |\n", t.type, t.help);
  }
  std::vector<std::string_view> written;
  for (const KeyRule& k : keys()) {
    if (k.group != group || std::find(written.begin(), written.end(), k.types) != written.end()) continue;
    written.push_back(k.types);
    if (!k.types.empty()) {
      std::string list(k.types);
      for (std::size_t at = 0; (at = list.find(' ', at)) != std::string::npos; at += 2) list.replace(at, 1, ", ");
      out += fmt::format("\n**{}**\n", list);
    } else if (!names.empty()) {
      out += "\n**all**\n";
    }
    write_rows(out, group, k.types);
  }
}

}  // namespace

std::string Range::str() const {
  const bool below = low == -kInfinity, above = high == kInfinity;
  if (below && above) return {};
  if (above) return fmt::format(" {} {}", low_open ? ">" : ">=", low);
  if (below) return fmt::format(" {} {}", high_open ? "<" : "<=", high);
  return fmt::format(" in {}{}, {}{}", low_open ? '(' : '[', low, high, high_open ? ')' : ']');
}

std::span<const KeyRule> keys() { return kKeys; }
std::span<const TypeRow> types() { return kTypes; }

std::vector<std::string> types_of(std::string_view group) {
  std::vector<std::string> names;
  for (const TypeRow& t : kTypes)
    if (t.group == group) names.emplace_back(t.type);
  return names;
}

const KeyRule* find_key(std::string_view group, std::string_view type, std::string_view key) {
  for (const KeyRule& k : kKeys)
    if (k.group == group && k.key == key && lists(k.types, type)) return &k;
  return nullptr;
}

std::vector<std::string> keys_of(std::string_view group, std::string_view type) {
  std::vector<std::string> names;
  for (const KeyRule& k : kKeys)
    if (k.group == group && lists(k.types, type)) names.emplace_back(k.key);
  return names;
}

std::string expected_of(const KeyRule& key) {
  if (key.choices.empty()) return kind_text(key.kind) + key.range.str();
  std::string list(key.choices);
  for (std::size_t at = 0; (at = list.find(' ', at)) != std::string::npos; at += 4) list.replace(at, 1, "\", \"");
  return "one of \"" + list + "\"";
}

std::string config_reference() {
  std::string out =
      "# The configuration of a run\n\n"
      "A TOML file that `bp train`, `bp inspect` and `bp gradcheck` read; "
      "[examples/fashion_mnist.toml](../examples/fashion_mnist.toml) is one. Paths are relative to the file. "
      "`--set optimizer.lr=0.01` overrides a key, `--set model.layers.0.units=64` one of a layer; paths given so are "
      "relative to the working directory. Unknown keys are errors. Every run leaves its effective configuration, with "
      "all defaults, in `runs/NAME/config.toml`, which reads as a configuration again.\n\n"
      "*This page is written from the table in `src/train/config_keys.cc` by `bp keys`; a test keeps it up to date.*\n";
  write_group(out, "", "The top of the file", "");
  write_group(out, "data", "[data]", "\n`format` says what the files are.");
  write_group(out, "augment", "[[augment]]",
              "\nSteps that alter the training images, one after another, after scaling and before mean and std: each "
              "`[[augment]]` table is one. An image depends on seed, epoch and row alone, whatever the workers. After "
              "mixup or cutmix the training accuracy counts the class of the larger share.");
  write_group(
      out, "model", "[model]",
      "\nImages are channels last: [H, W, C]. Where the data are text, \"vocabulary\" stands for the number of symbols "
      "wherever an integer is expected: `units = \"vocabulary\"`.");
  write_group(out, "layer", "A layer of [model] layers", "\n`{ type = \"linear\", units = 10 }`");
  write_group(out, "loss", "[loss]", "\nThe mean over the batch.");
  write_group(out, "optimizer", "[optimizer]", "\nPyTorch's semantics; formulas are in `include/bp/optim.h`.");
  write_group(out, "schedule", "[schedule]",
              "\nThe learning rate over the run; may be left out (`constant`). Formulas are in "
              "`include/bp/schedule.h`.");
  write_group(out, "train", "[train]", "");
  write_group(
      out, "tune", "[tune]",
      "\nWhat `bp tune` tries ([tune.md](tune.md)); `bp train` passes it over. Each key of `[tune.space]` is one of "
      "the configuration, as --set writes it: `\"optimizer.lr\" = { log = [1e-4, 1e-1] }`. Its values are a list, "
      "or a range `uniform`, `log`, `integer` or `log_integer`, with `points` for a grid.");
  return out;
}

}  // namespace bp::train
