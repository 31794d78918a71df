// Training from a file larger than memory: makes one, trains the cnn case on it in shuffled order, and tells which
// share of the time was computing (the rest waited for data) and the peak of the resident set. The file is dropped from
// the page cache first, so rows come from the disk, and is removed at the end. Exits with 1 beyond the limits that are
// given. Prints one JSON line; scripts/performance writes them down. Linux. usage: stream [--format npy|idx|csv]
// [--gigabytes 8] [--seconds 60] [--threads 2] [--workers 1] [--folder DIR]
//               [--least-busy 0.95] [--most-mib 512]
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "cases.h"

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::int64_t kPixels = 28 * 28;

struct Net {
  bench::Cnn cnn;
  bp::Tensor operator()(const bp::Tensor& x) const { return cnn(bp::reshape(x, {x.shape()[0], 28, 28, 1})); }
  BP_FIELDS(Net, cnn)
};

// A folder that disappears with what is in it.
class Folder {
 public:
  explicit Folder(const std::string& parent) : path_(parent + "/bp_stream_XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a folder in " + parent);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Pseudo-random bytes, a block at a time.
class Noise {
 public:
  void fill(std::vector<std::uint64_t>& block) {
    for (std::uint64_t& word : block) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      word = state_ ^ state_ >> 29;
    }
  }

 private:
  std::uint64_t state_ = 42;
};

void be32(std::ostream& out, std::int64_t n) {
  for (int shift = 24; shift >= 0; shift -= 8) out.put(static_cast<char>(n >> shift));
}

void write_images(std::ofstream& out, const std::string& format, std::int64_t rows) {
  if (format == "npy") {
    std::string header = fmt::format("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 28, 28, 1), }}", rows);
    header.resize(117, ' ');
    out << std::string("\x93NUMPY\x01\x00\x76\x00", 10) << header << '\n';
  } else {
    out << std::string("\x00\x00\x08\x04", 4);
    for (const std::int64_t n : {rows, std::int64_t{28}, std::int64_t{28}, std::int64_t{1}}) be32(out, n);
  }
  Noise noise;
  std::vector<std::uint64_t> block(kPixels * 1024 / 8);  // 1024 images
  for (std::int64_t left = rows; left > 0; left -= 1024) {
    noise.fill(block);
    out.write(reinterpret_cast<const char*>(block.data()), std::min<std::int64_t>(left, 1024) * kPixels);
  }
}

void write_labels(const std::string& path, std::int64_t rows) {
  std::ofstream out(path, std::ios::binary);
  out << std::string("\x00\x00\x08\x01", 4);
  be32(out, rows);
  for (std::int64_t i = 0; i < rows; ++i)
    out.put(static_cast<char>(bench::bits(1001, static_cast<std::uint32_t>(i)) % 10));
}

void write_table(std::ofstream& out, std::int64_t rows) {
  std::string line = "class";
  for (std::int64_t p = 0; p < kPixels; ++p) line += fmt::format(",p{}", p);
  out << line << '\n';
  Noise noise;
  std::vector<std::uint64_t> block(kPixels / 8);
  for (std::int64_t i = 0; i < rows; ++i) {
    noise.fill(block);
    line = std::to_string(block[0] % 10);
    for (const std::uint64_t word : block)
      for (int k = 0; k < 64; k += 8) {
        line += ',';
        line += fmt::format_int(100 + (word >> k & 127)).str();  // three digits: a row is 3138 bytes
      }
    out << line << '\n';
  }
}

// Written back and out of the page cache.
void forget(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  if (file < 0 || ::fsync(file) != 0 || ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0)
    throw std::runtime_error("cannot drop " + path + " from the page cache");
  ::close(file);
}

bp::data::SourcePtr make_source(const Folder& folder, const std::string& format, double gigabytes) {
  const std::string path = folder / ("x." + format).c_str(), labels = folder / "y.idx";
  const bool table = format == "csv";
  const auto rows = static_cast<std::int64_t>(gigabytes * 1e9) / (table ? 4 * kPixels + 2 : kPixels);
  std::ofstream out(path, std::ios::binary);
  if (table) {
    write_table(out, rows);
  } else {
    write_images(out, format, rows);
    write_labels(labels, rows);
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
  forget(path);
  if (!table) return bp::data::normalized(std::make_shared<const bp::data::FileRows>(path, labels), {0}, {1});
  bp::io::CsvOptions options;
  options.categorical = {"class"};
  bp::io::CsvFile file(path, options);
  forget(path);
  return bp::data::normalized(std::make_shared<const bp::data::CsvRows>(std::move(file), "class"), {0}, {255});
}

struct Measured {
  std::int64_t steps = 0;
  double seconds = 0, waited = 0;
};

// Trains for so long; counted from the tenth step on, when the step is compiled and the loader runs.
Measured train(bp::data::DataLoader& loader, int threads, double seconds) {
  Net model;
  bp::nn::init(model, bp::Key(1));
  bp::optim::Adam optimizer(model, {.lr = 1e-3});
  Measured m;
  Clock::time_point start;
  double waited = 0;
  bp::train::Options options{.epochs = 1, .threads = threads};
  options.on_step = [&](const bp::train::Progress& p) {
    if (p.step == 10) {
      start = Clock::now();
      waited = loader.stats().waited;
    }
    if (p.step <= 10) return;
    m = {p.step - 10, std::chrono::duration<double>(Clock::now() - start).count(), loader.stats().waited - waited};
  };
  options.interrupted = [&] { return m.seconds > seconds; };
  const auto loss = [](const bp::Tensor& y, const bp::Tensor& t) { return bp::cross_entropy(y, t); };
  bp::train::Trainer(model, loss, optimizer, options).fit(loader);
  return m;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto option = [&](const char* name, const char* otherwise) {
    return bench::option(argc, argv, name, otherwise);
  };
  const std::string format = option("format", "npy");
  const double gigabytes = std::stod(option("gigabytes", "8"));
  const int threads = std::stoi(option("threads", "2")), workers = std::stoi(option("workers", "1"));
  if (format != "npy" && format != "idx" && format != "csv")
    throw std::runtime_error("unknown format " + format + ": expected npy, idx or csv");
  const Folder folder(option("folder", std::filesystem::temp_directory_path().c_str()));
  const Clock::time_point start = Clock::now();
  const bp::data::SourcePtr source = make_source(folder, format, gigabytes);
  const double opened = std::chrono::duration<double>(Clock::now() - start).count();
  bp::data::DataLoader loader(source, {.batch_size = 64, .key = bp::Key(7), .threads = workers});
  const Measured m = train(loader, threads, std::stod(option("seconds", "60")));
  const double busy = 1 - m.waited / m.seconds, peak = bench::process_status("VmHWM") / (1 << 20);
  fmt::print(
      "{{\"format\":\"{}\",\"gigabytes\":{},\"rows\":{},\"threads\":{},\"workers\":{},\"made_s\":{:.1f},\"steps\":{},"
      "\"step_us\":{:.1f},\"busy\":{:.4f},\"slowest_fetch_us\":{:.0f},\"peak_mib\":{:.1f}}}\n",
      format, gigabytes, source->size(), threads, workers, opened, m.steps,
      1e6 * m.seconds / static_cast<double>(m.steps), busy, 1e6 * loader.stats().slowest, peak);
  return busy < std::stod(option("least-busy", "0")) || peak > std::stod(option("most-mib", "1e9")) ? 1 : 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "stream: {}\n", e.what());
  return 1;
}
